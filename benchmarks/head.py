"""The vocabulary head beside the three bare products that it cannot do without, and its memory in a fresh process.

    python benchmarks/head.py --sizes 512x512x32768 --dtype float32 --out head.json
    python benchmarks/head.py --sizes 1024x512x32768 --memory

Sizes are tokens x width x vocabulary. Ratios of CPU time, one thread, in one process.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clock
import torch

from expunge.core import Needs
from expunge.fused import Head, naive_token_stats, token_stats

PLAIN, WITH_ENTROPY = Needs(), Needs(entropy=frozenset({1.0}))
FLOOR = "bare products"


def works(n: int, width: int, vocabulary: int, dtype: torch.dtype) -> dict[str, Callable[[], object]]:
    """A loss of log-probabilities and its gradient, on each way that there is, and the bare products."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(n, width, generator=generator).to(dtype).requires_grad_()
    weight = (torch.randn(vocabulary, width, generator=generator) / width**0.5).to(dtype).requires_grad_()
    targets = torch.randint(0, vocabulary, (n,), generator=generator)

    def step(stats: Any, head: Head, needs: Needs) -> Callable[[], object]:
        def work() -> None:
            hidden.grad = weight.grad = None
            stats(hidden, head, targets, needs).logp.mean().backward()

        return work

    h, w = hidden.detach(), weight.detach()
    z, dh, dw = h.new_empty(n, vocabulary), torch.empty_like(h), torch.empty_like(w)

    def products() -> None:
        torch.mm(h, w.T, out=z)
        torch.mm(z, w, out=dh)
        torch.mm(z.T, h, out=dw)

    return {
        FLOOR: products,
        "trained": step(token_stats, Head(weight), PLAIN),
        "trained, entropy": step(token_stats, Head(weight), WITH_ENTROPY),
        "frozen": step(token_stats, Head(w), PLAIN),
        "frozen, entropy": step(token_stats, Head(w), WITH_ENTROPY),
        "naive": step(naive_token_stats, Head(weight), PLAIN),
        "naive, entropy": step(naive_token_stats, Head(weight), WITH_ENTROPY),
    }


def growth(name: str, size: str, dtype: str) -> int:
    """Megabytes that the resident set of a fresh process grows by while one such step is made."""
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        f"import head, torch, resource\ntorch.set_num_threads(1)\nwork = head.works(*map(int, {size!r}.split('x')), "
        f"torch.{dtype})[{name!r}]\nbefore = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\nwork()\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    return int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Reads the command line and prints a row a size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["256x512x32768", "1024x512x4096"])
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for size in args.sizes:
        row: dict[str, Any] = {"size": size, "dtype": args.dtype}
        made = works(*map(int, size.split("x")), getattr(torch, args.dtype))
        if args.memory:
            row["megabytes"] = {name: growth(name, size, args.dtype) for name in made if name != FLOOR}
        else:
            row |= {name: round(found, 3) for name, found in clock.ratios(made, FLOOR, args.times).items()}
        rows.append(row)
    clock.report(rows, args.out)


if __name__ == "__main__":
    main()
