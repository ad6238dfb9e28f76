#!/usr/bin/env python3
"""Checks a checkpoint and shows the model in it; needs Python's `safetensors` and numpy, PyTorch only for --torch.

    read_checkpoint.py kept/00000003 [--torch lenet5]
"""

import argparse
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


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=pathlib.Path)
    parser.add_argument("--torch", choices=["lenet5"], help="load the model into this network, by name")
    arguments = parser.parse_args()
    manifest = check(arguments.checkpoint)
    print(f"iteration {manifest['iteration']} of {manifest['run']['nodes']} nodes, {manifest['holds']}")
    model = arguments.checkpoint / "model.safetensors"
    if arguments.torch:
        from safetensors.torch import load_file

        network = lenet5()
        print(network.load_state_dict(load_file(model)))
    else:
        from safetensors.numpy import load_file

        for name, tensor in sorted(load_file(model).items()):
            print(f"{name:40} {str(tensor.dtype):8} {tensor.shape}")


if __name__ == "__main__":
    main()
