"""The container beside its peers and beside services wired by hand.

    python benchmarks/di.py [--rounds 15] [--calls 20000]

Five services, of which one needs the other four: as a cached singleton, as five transients, and as five scoped services
in a scope of their own; contenders in turns within one process. The base is the same wired by hand: a method that
makes the one instance when it is first called, and the five constructors. Then the proof of a graph as it grows; the
peers do a part of the work of registering when they prove.
"""

from __future__ import annotations

import argparse
import time

import _di_contenders as contenders
from _harness import median, print_table
from _micro import in_turns, ratio_rows

BY_HAND = "by hand"
SIZES = (200, 500, 1_000, 2_000)
PROVERS = {
    "POLARIS": (contenders.polaris_registers, SIZES),
    "dishka": (contenders.dishka_registers, SIZES),
    "wireup": (contenders.wireup_registers, SIZES[:1]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=20_000)
    arguments = parser.parse_args()
    by_hand = contenders.ByHand()
    tables = {
        "A cached singleton": {
            BY_HAND: by_hand.singleton,
            "POLARIS": contenders.polaris_singleton(),
            "dependency-injector": contenders.dependency_injector_singleton(),
            "wireup": contenders.wireup_singleton(),
            "dishka": contenders.dishka_singleton(),
        },
        "Five transients": {
            BY_HAND: by_hand.construct,
            "POLARIS": contenders.polaris_transients(),
            "dishka": contenders.dishka_transients(),
            "wireup": contenders.wireup_transients(),
            "dependency-injector": contenders.dependency_injector_transients(),
        },
        "A scope with five scoped services": {
            BY_HAND: by_hand.construct,
            "POLARIS": contenders.polaris_scope(),
            "dishka": contenders.dishka_scope(),
            "wireup": contenders.wireup_scope(),
        },
    }
    for title, group in tables.items():
        times = in_turns(group, calls=arguments.calls, rounds=arguments.rounds)
        print_table(title, ("contender", "ns a call", "x by hand"), ratio_rows(times, BY_HAND))
    prove(arguments.rounds)


def prove(rounds: int) -> None:
    rows = []
    for name, (register, sizes) in PROVERS.items():
        for size in sizes:
            registering, proving = [], []
            for _ in range(max(3, rounds // 3)):
                classes = contenders.layers_of(size)
                began = time.perf_counter()
                validate = register(classes)
                registered = time.perf_counter()
                validate()
                proving.append(time.perf_counter() - registered)
                registering.append(registered - began)
            both_us = (median(registering) + median(proving)) / size * 1e6
            figures = (f"{median(registering) * 1e3:,.1f}", f"{median(proving) * 1e3:,.1f}", f"{both_us:,.1f}")
            rows.append((name, f"{size:,}", *figures))
    headings = ("container", "services", "registering, ms", "proving, ms", "us a service")
    print_table("Registering services and proving their graph", headings, rows)


if __name__ == "__main__":
    main()
