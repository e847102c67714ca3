"""Do all ranks hold the same numbers?  Every rank updates its own, and nobody sends them around."""

import hashlib
import platform
import socket
from collections import Counter

import numpy as np
from threadpoolctl import threadpool_info

from dpedf.errors import AgreedRunError


def expect_equal(ranks, step, vectors):
    """AgreedRunError: after this step, one of the vectors, {name: vector}, differs between ranks.

    The first such vector is named, and the ranks that do not have what most have, or what rank 0
    has, if there is no most.
    """
    mine = {name: hashlib.sha256(vector).digest() for name, vector in vectors.items()}
    found = ranks.gather((socket.gethostname(), mine))
    for name in mine:
        hashes = [theirs[name] for _, theirs in found]
        usual = Counter(hashes).most_common(1)[0][0]
        others = [rank for rank, its in enumerate(hashes) if its != usual]
        if others:
            who = ", ".join(f"rank {rank} ({found[rank][0]})" for rank in others)
            raise AgreedRunError(
                f"step {step:,}: {who} and rank {hashes.index(usual)} differ in {name}, "
                "expected the same bits on every rank; "
                "look for what depends on the rank, or at the memory of that machine"
            )


def arithmetic(threads):
    """What decides the bits of a rank beside the program, and may differ from host to host."""
    blas = [library for library in threadpool_info() if library["user_api"] == "blas"]
    simd = np.show_config(mode="dicts").get("SIMD Extensions", {})
    return {
        "NumPy": f"{np.__version__} for {' '.join(simd.get('found', [])) or platform.machine()}",
        "BLAS": ", ".join(
            f"{library['internal_api']} {library['version']} for {library.get('architecture')}"
            for library in blas
        ),
        "BLAS threads": str(threads),
        "C library": " ".join(platform.libc_ver()),
    }


def mixture(ranks, threads):
    """A line for the user, if the ranks compute with what may give other bits; None otherwise."""
    found = ranks.gather(arithmetic(threads))
    for rank, other in enumerate(found):
        differ = [what for what in other if other[what] != found[0][what]]
        if differ:
            theirs, ours = (
                ", ".join(f"{what} {its[what]}" for what in differ) for its in (other, found[0])
            )
            return (
                f"rank {rank} computes with {theirs}, rank 0 with {ours}: "
                "the bits of this run are those of this mixture"
            )
    return None
