"""All-reduce of Gloo through PyTorch, for `allreduce` to stand beside.

RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT say who takes part; the arguments are sizes in bytes. For each size rank 0
prints one line: the bytes, then the seconds of every repetition, the slowest rank's, each after a barrier. Every first
result is checked.
"""

import sys
import time

import torch
import torch.distributed as distributed

torch.set_num_threads(1)
distributed.init_process_group("gloo")
rank, ranks = distributed.get_rank(), distributed.get_world_size()
for size in map(int, sys.argv[1:]):
    own = torch.arange(size // 4).remainder(7).to(torch.float32) + rank
    total = own.clone()
    distributed.all_reduce(total)
    expected = (own - rank) * ranks + ranks * (ranks - 1) / 2
    assert torch.equal(total, expected), f"wrong sums of {size} bytes"
    seconds = []
    for index in range(4 + (200 if size <= 256 << 10 else 40 if size <= 4 << 20 else 10)):
        total.copy_(own)
        distributed.barrier()
        start = time.perf_counter()
        distributed.all_reduce(total)
        if index >= 4:
            seconds.append(time.perf_counter() - start)
    slowest = torch.tensor(seconds, dtype=torch.float64)
    distributed.all_reduce(slowest, op=distributed.ReduceOp.MAX)
    if rank == 0:
        print(size, *(f"{value:.9f}" for value in slowest.tolist()), flush=True)
distributed.destroy_process_group()
