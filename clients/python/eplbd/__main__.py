# SPDX-License-Identifier: Apache-2.0
"""python3 -m eplbd convert FILE OUT.npy: a trace, or with --placement a placement, as NumPy's .npy."""

import argparse
import sys

import numpy as np

from . import files


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m eplbd")
    convert = parser.add_subparsers(dest="command", required=True).add_parser(
        "convert", help="makes a .npy, which eplbctl and numpy read, of a file of another kind",
        description=files.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    convert.add_argument("file")
    convert.add_argument("out", metavar="OUT.npy")
    convert.add_argument("--placement", action="store_true", help="[layers, slots], instead of loads")
    options = parser.parse_args()
    try:
        read = files.read_placement if options.placement else files.read_trace
        array = read(options.file)
        if array.dtype.kind == "u" or (array.dtype.kind == "i" and array.dtype.itemsize < 4):
            array = array.astype(np.int64)
        elif array.dtype.kind == "f":
            array = array.astype(np.float64)
        with open(options.out, "wb") as out:
            np.save(out, np.ascontiguousarray(array))
    except (OSError, ValueError) as problem:
        print(f"eplbd: {problem}", file=sys.stderr)
        return 1
    print(f"{options.out}: {' x '.join(map(str, array.shape))} {array.dtype}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
