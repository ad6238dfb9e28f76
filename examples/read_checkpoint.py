#!/usr/bin/env python3
"""Checks a checkpoint and shows the model in it; needs Python's `safetensors` and numpy, PyTorch only for --torch.

    read_checkpoint.py kept/00000003 [--torch lenet5 [--data examples/data]]
"""

import argparse
import gzip
import hashlib
import json
import pathlib
import sys


def check(folder):
    """Compares every file with its digest; returns the manifest."""
    voucher = (folder / "manifest.json.sha256").read_text().split()[0]
    content = (folder / "manifest.json").read_bytes()
    if hashlib.sha256(content).hexdigest() != voucher:
        sys.exit(f"{folder}: manifest.json is damaged")
    manifest = json.loads(content)
    for name, entry in manifest["files"].items():
        content = (folder / name).read_bytes()
        if (len(content), hashlib.sha256(content).hexdigest()) != (entry["bytes"], entry["sha256"]):
            sys.exit(f"{folder}: {name} is damaged")
    return manifest


def lenet5():
    """LeNet-5 as torchvision users write it, for images of 28 pixels."""
    from torch import nn

    class LeNet5(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
            self.conv2 = nn.Conv2d(6, 16, 5)
            self.fc1 = nn.Linear(16 * 5 * 5, 120)
            self.fc2 = nn.Linear(120, 84)
            self.fc3 = nn.Linear(84, 10)

        def forward(self, x):
            pool = nn.functional.max_pool2d
            x = pool(self.conv1(x).relu(), 2)
            x = pool(self.conv2(x).relu(), 2)
            x = self.fc1(x.flatten(1)).relu()
            return self.fc3(self.fc2(x).relu())

    return LeNet5()


def images(folder, name):
    """The pixels and labels of compressed IDX files, pixels scaled to 0 ... 1."""
    import numpy

    read = lambda kind, header: numpy.frombuffer(
        gzip.decompress((folder / f"{name}-{kind}-ubyte.gz").read_bytes()), "u1", offset=header
    )
    return read("images-idx3", 16).reshape(-1, 1, 28, 28).astype("f4") / 255, read("labels-idx1", 8).astype("i8")


def accuracy(network, folder):
    """The share of the test images that the network names, normalised by the training images as the trainers do."""
    import torch

    train, _ = images(folder, "train")
    pixels, labels = images(folder, "t10k")
    pixels = (pixels - train.mean(dtype="f8")) / train.std(dtype="f8")
    with torch.no_grad():
        named = network.eval()(torch.tensor(pixels, dtype=torch.float32)).argmax(1)
    return (named == torch.tensor(labels)).double().mean().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=pathlib.Path)
    parser.add_argument("--torch", choices=["lenet5"], help="load the model into this network, by name")
    parser.add_argument("--data", type=pathlib.Path, help="and name the test images of this folder by it")
    arguments = parser.parse_args()
    manifest = check(arguments.checkpoint)
    print(f"iteration {manifest['iteration']} of {manifest['run']['nodes']} nodes, {manifest['holds']}")
    model = arguments.checkpoint / "model.safetensors"
    if arguments.torch:
        from safetensors.torch import load_file

        network = lenet5()
        print(network.load_state_dict(load_file(model)))
        if arguments.data:
            print(f"accuracy {accuracy(network, arguments.data):.4f}")
    else:
        from safetensors.numpy import load_file

        for name, tensor in sorted(load_file(model).items()):
            print(f"{name:40} {str(tensor.dtype):8} {tensor.shape}")


if __name__ == "__main__":
    main()
