"""The golden fixtures: make fixtures/{valid,invalid,folders} and fixtures/manifest.json, or check them.

Every file is made from a stated rule (tests/golden.py, damaged.py, folder_cases.py) and every expected value
by tests/independent.py, which imports nothing of the package; tests/test_fixtures.py proves that the
package agrees. Only the real weights in files are quantised by the package: which levels an encoder chooses
is no part of conformance. What makes the files stands in tests/, since the tests use it, too.

usage: python tools/make_fixtures.py [--check]
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import load_file

from tritcodec import quantize
from tritcodec.tensor import TritTensor

ROOT = Path(__file__).parents[1]
sys.path.insert(
    0, str(ROOT / "tests")
)  # the makers of files are shared with the tests and no part of the package

import encode_vectors  # noqa: E402  # after the path is known
import folder_cases  # noqa: E402  # as above
import golden  # noqa: E402  # as above
import independent  # noqa: E402  # as above
import layout_vectors  # noqa: E402  # as above
import matmul_cases  # noqa: E402  # as above
from golden import Case  # noqa: E402  # as above
from independent import FORMATS, INFINITY, Broken, Raw, Trit, planes_from  # noqa: E402  # as above
from painted import painted  # noqa: E402  # as above

FIXTURES = ROOT / "fixtures"
MANIFEST = "manifest.json"
FOLDERS = ("valid", "invalid")
PRODUCTS = "matmul"  # the folder of golden products
MODEL = FIXTURES / "minilm" / "model.safetensors"
REAL_MATRIX = "encoder.layer.0.attention.self.query.weight"
COMMAND = "python tools/make_fixtures.py"
FORMAT, VERSION = "1.0", "1.0"  # of the manifest; of SPEC.md
UNSUPPORTED = ("PRE-3", "PRE-4")
Json = dict[str, Any]


class Fault(NamedTuple):
    """A class of faults: a flag of cases, by the patterns of their ids, and what the fault does elsewhere."""

    flag: str
    kind: str
    words: str  # of the checklist
    effect: str
    patterns: str  # with spaces between them
    named: str  # requirements that its broken files break, with spaces between them
    cves: tuple[str, ...] = ()


CVES = {  # what the bug was, and where number and kind were confirmed
    "CVE-2000-0884": "IIS checked a path, then decoded overlong UTF-8 in it (the vendor's bulletin)",
    "CVE-2007-4559": "Python's tarfile wrote members named ../x (reports to the projects that it concerned)",
    "CVE-2017-12635": "CouchDB's two JSON parsers took different values of a key (the project's advisory)",
    "CVE-2020-5234": "MessagePack for C# overflowed its stack (the project's advisory)",
    "CVE-2021-25743": "kubectl wrote control sequences to the terminal (the project's issue and its fix)",
    "CVE-2021-42574": "source code was shown in another order than compiled (a note to all vendors)",
    "CVE-2024-21802": "llama.cpp: more dimensions than the array for them has (the finders' report)",
    "CVE-2024-21825": "llama.cpp: the length of a string or array wrapped (the finders' report)",
    "CVE-2024-21836": "llama.cpp: memory for the claimed number of tensors wrapped (the finders' report)",
    "CVE-2024-23496": "llama.cpp: the length of a string wrapped (the finders' report)",
    "CVE-2024-23605": "llama.cpp: memory for the claimed number of keys wrapped (the finders' report)",
    "CVE-2024-48924": "MessagePack for C# overflowed its stack once more (the project's advisory)",
    "CVE-2025-53630": "llama.cpp: the sum of the sizes of tensors wrapped (the project's advisory)",
    "CVE-2026-7482": "Ollama read tensors that were said to lie beyond the file's end (the finders' report)",
    "CVE-2026-21452": "msgpack-java allocated what an ext claimed (reports of projects that use it)",
    "CVE-2026-27940": "llama.cpp: a way around the fix of CVE-2025-53630 (the project's advisory)",
    "CVE-2026-33298": "llama.cpp: elements times bytes an element wrapped (the project's advisory)",
    "CVE-2026-90472": "msgpack-java overflowed its stack (the project's issue)",
    "CVE-2026-90473": "msgpack-java: twice the count of a map32 wrapped (the project's issue)",
}
FAULTS = [  # the checklist, in its order; each class has cases, which a test proves
    # Preamble
    Fault(
        "short",
        "truncation",
        "empty file; every truncation",
        "Reads beyond the end.",
        "preamble/cut-* preamble/an-empty-file preamble/a-file-of-63-* preamble/the-last-byte-*",
        "PRE-1 PRE-6 PRE-7 LAY-4",
    ),
    Fault(
        "magic",
        "identification",
        "each magic byte wrong",
        "Another format is read as this one.",
        "preamble/magic-* preamble/byte-*-of-the-magic",
        "PRE-2",
    ),
    Fault(
        "text-mode",
        "transfer",
        "text-mode damage",
        "A transfer as text goes unnoticed.",
        "preamble/text-mode-*",
        "PRE-1 PRE-2 PRE-3",
    ),
    Fault(
        "byte-order",
        "byte order",
        "byte-swapped integers",
        "Numbers of another byte order are taken as they stand.",
        "preamble/major-256 preamble/minor-big-endian "
        "preamble/header-size-2233785415175766016 preamble/file-size-9223372036854775808 "
        "codebook/big-endian",
        "PRE-3 PRE-5 PRE-6 HDR-2 CB-4",
    ),
    Fault(
        "major",
        "version",
        "major 0, major + 1",
        "A file of another version is misread or called corrupt.",
        "preamble/major-*",
        "PRE-3",
    ),
    Fault(
        "newer-minor",
        "version",
        "minor + 1 is read; it may add keys and change nothing",
        "A file that only adds keys is refused.",
        "header/minor-* limits/*1-1 limits/a-file-1-65535 versions/*-in-1-1 versions/*-in-a-file-1-1",
        "PRE-4 NAME-1 ENT-1 ENT-2 ENT-3 CB-1 TEN-1 TEN-2 TEN-3 TEN-4 TEN-5",
    ),
    Fault(
        "reserved-flag",
        "version",
        "each flag bit",
        "A feature that must not be ignored is.",
        "preamble/flag-* preamble/all-flags versions/flag-*",
        "PRE-4",
    ),
    Fault(
        "header-size",
        "size that lies",
        "header size 0, beyond the file, at the limit and above",
        "Allocates by a number from the file, or wraps.",
        "preamble/header-size-* preamble/a-header-*",
        "PRE-5 PRE-7 PRE-8",
        ("CVE-2024-21825", "CVE-2024-23496"),
    ),
    Fault(
        "header-digest",
        "integrity",
        "header digest wrong",
        "A damaged header is believed.",
        "preamble/digest-* preamble/a-bit-of-* preamble/header-size-30 preamble/header-size-32",
        "PRE-8",
    ),
    Fault(
        "file-size",
        "size that lies",
        "file size field too small or large",
        "A shortened or lengthened file is read.",
        "preamble/file-size-* preamble/a-file-said-*",
        "PRE-6",
    ),
    Fault(
        "renamed",
        "identification",
        "another format renamed .trit",
        "Another format is read as this one.",
        "preamble/renamed-*",
        "PRE-2",
    ),
    # MessagePack
    Fault(
        "cut-header",
        "truncation",
        "header truncated at every byte",
        "Reads beyond the end of the header.",
        "messagepack/header-of-31-* messagepack/head-*-cut-* messagepack/the-header-cut-*"
        " messagepack/a-str-that-claims-*",
        "MP-5",
    ),
    Fault(
        "trailing",
        "hidden data",
        "trailing bytes",
        "Two readers see two headers.",
        "messagepack/trailing-* messagepack/a-byte-after-* messagepack/the-header-twice",
        "MP-5",
    ),
    Fault(
        "type",
        "type confusion",
        "top object no map; bin for str, str for bin",
        "A value of another type is used.",
        "types/*",
        "TYPE-1",
    ),
    Fault(
        "unused-type",
        "type confusion",
        "0xC1; ext, timestamp; nil, bool, float, negative numbers for integers",
        "True counts as 1, or a parser's object reaches the caller.",
        "messagepack/*-for-an-integer messagepack/first-byte-* messagepack/minus-* "
        "messagepack/*-for-the-depth messagepack/header-[cdf][0-9a-f] "
        "messagepack/key-[cdf][0-9a-f] messagepack/name-[cdf][0-9a-f] messagepack/kind-* "
        "messagepack/codebook-* messagepack/shape-* order/nil-*",
        "MP-1",
    ),
    Fault(
        "four-gib",
        "size that lies",
        "str32, bin32, array32, map32 claiming 4 GiB",
        "Allocates by a number from the file.",
        "messagepack/*-of-4-gi* order/a-bin-cut-off* order/an-array32-* order/a-map32-* "
        "order/claim-4294967295-*",
        "MP-5 HDR-4 HDR-5",
        (
            "CVE-2024-21825",
            "CVE-2024-21836",
            "CVE-2024-23496",
            "CVE-2024-23605",
            "CVE-2026-21452",
            "CVE-2026-90473",
        ),
    ),
    Fault(
        "nesting",
        "recursion",
        "nesting of 9, 100, 100,000",
        "The stack overflows.",
        "messagepack/arrays-* messagepack/maps-*-deep messagepack/empty-array-* "
        "order/arrays-nested-* limits/arrays-nested-*",
        "MP-6",
        ("CVE-2020-5234", "CVE-2024-48924", "CVE-2026-90472"),
    ),
    Fault(
        "key-type",
        "type confusion",
        "non-string key",
        "Keys of other types hide from checks.",
        "messagepack/the-key-* messagepack/key-[cdf][0-9a-f]",
        "MP-1 MP-3",
    ),
    Fault(
        "duplicate-key",
        "ambiguity",
        "duplicate key, of the same and another width",
        "Two readers see two values.",
        "messagepack/*-twice messagepack/a-key-twice messagepack/key-twice-*",
        "MP-2 MP-3",
        ("CVE-2017-12635",),
    ),
    # Canonicality
    Fault(
        "longer-form",
        "ambiguity",
        "integers, strings, bins, arrays and maps in a longer form at each boundary",
        "One value has two encodings, and a file two identities.",
        "messagepack/*-in-[1248]-bytes messagepack/the-integer-* messagepack/a-*-with-* "
        "messagepack/an-array-*-with-* messagepack/an-array-with-* "
        "order/a-str-in-a-long-*",
        "MP-2",
    ),
    Fault(
        "shortest-form",
        "limit",
        "the same in their shortest form",
        "A form is not known to a reader.",
        "messagepack/integer-* messagepack/str-* messagepack/bin-* messagepack/array-* "
        "messagepack/map-* limits/a-value-of-*",
        "",
    ),
    Fault(
        "signed-form",
        "ambiguity",
        "signed form of a positive integer",
        "One value has two encodings.",
        "messagepack/d[0-3]-*-for-an-integer messagepack/int8-*",
        "MP-1",
    ),
    Fault(
        "key-order",
        "ambiguity",
        "keys unsorted, or sorted by encoded length",
        "One value has two encodings.",
        "messagepack/header-*-* messagepack/*-entry-*-late messagepack/keys-*",
        "MP-3",
    ),
    Fault(
        "unknown-key",
        "hidden data",
        "unknown key",
        "What is misspelt or added is ignored.",
        "versions/*-key-* versions/an-unknown-* versions/a-key-* order/*-another-key-*",
        "VER-1",
    ),
    Fault(
        "missing-key",
        "missing value",
        "each required key missing",
        "A default takes the place of a value.",
        "header/no-* header/*-misspelt header/an-empty-map entries/*-entry-without-* "
        "versions/no-* order/*-without-its-*",
        "HDR-1 ENT-1",
    ),
    # Names
    Fault(
        "name-length",
        "limit",
        "names: empty; limit and limit + 1 in bytes",
        "Characters are counted for bytes.",
        "names/*-empty names/*513* names/*512* names/*-characters-of-* limits/names-of-* "
        "limits/a-name-of-256-*",
        "NAME-1",
    ),
    Fault(
        "utf-8",
        "text",
        "NUL; overlong, surrogate, F5 and above, cut UTF-8",
        "Two spellings of one name pass a check; a decoder throws.",
        "messagepack/name-* messagepack/metadata-* messagepack/*-of-the-bytes-* "
        "order/*-not-utf-8* names/*-u-0000",
        "MP-4 NAME-2",
        ("CVE-2000-0884",),
    ),
    Fault(
        "control",
        "text",
        "C0, C1, DEL, ESC; a verifier's report forged by a name",
        "A name acts on a terminal or forges a line.",
        "names/*-u-00[0189]* names/*-u-007f names/name-forges-*",
        "NAME-2",
        ("CVE-2021-25743",),
    ),
    Fault(
        "bidi",
        "text",
        "U+2028..202E, 2066..2069, FEFF",
        "Text is shown in another order than it stands.",
        "names/*-u-20* names/*-u-feff",
        "NAME-2",
        ("CVE-2021-42574",),
    ),
    Fault(
        "allowed-text",
        "limit",
        "characters beside those that are refused",
        "A name that is allowed is refused.",
        "limits/a-name-with-* names/metadata-key-*",
        "",
    ),
    Fault(
        "twins",
        "text",
        "NFC, NFD and case twins are accepted",
        "Names are normalised or case is folded.",
        "limits/twins-* header/names-in-the-order-nfc-nfd",
        "HDR-3",
    ),
    Fault(
        "path",
        "text",
        "names that would be paths: ../x, absolute, drive letter, CON, URL-like (those of "
        "shards wait for shards)",
        "A path is made of a name unchecked.",
        "names/name-like-a-path-* limits/names-that-would-*",
        "",
        ("CVE-2007-4559",),
    ),
    Fault(
        "directory-order",
        "ambiguity",
        "names twice; directory unsorted",
        "Two tensors of one name.",
        "header/names-* header/three-names* header/prefix-first limits/names-in-*",
        "HDR-3",
    ),
    # Shapes
    Fault(
        "rank",
        "limit",
        "rank 0 and 9",
        "A fixed array overflows.",
        "tensors/*-rank-* limits/raw-tensors-of-rank-* tensors/a-trit-tensor-of-shape",
        "SHAPE-1 TEN-1",
        ("CVE-2024-21802",),
    ),
    Fault(
        "zero-axis",
        "limit",
        "zero axis",
        "Division by zero, or a tensor without rows.",
        "tensors/shape-* tensors/a-trit-tensor-of-shape-*0* entries/raw-*-0 "
        "entries/raw-*-3x0x2 limits/an-axis-*",
        "SHAPE-2 TEN-1",
    ),
    Fault(
        "product",
        "overflow",
        "2^31, 2^32, 2^63; products that wrap to a small number",
        "A small buffer for a large tensor.",
        "tensors/raw-shape-* tensors/a-shape-beyond-* tensors/trit-shape-* tensors/a-*-tensor-of-shape-* "
        "layout/claim-product layout/claim-elements*",
        "SHAPE-2 LAY-4",
        ("CVE-2026-33298",),
    ),
    Fault(
        "padded-rows",
        "overflow",
        "product fine and padded rows overflow",
        "A check of the product is passed by the padding.",
        "layout/claim-padded-rows layout/claim-rows",
        "LAY-4",
    ),
    Fault(
        "align",
        "overflow",
        "align wraps",
        "Aligned, a large segment has no bytes.",
        "layout/claim-align",
        "LAY-4",
    ),
    Fault(
        "running-sum",
        "overflow",
        "running sum wraps though each size fits",
        "The file seems as long as it should be.",
        "layout/*running-sum*",
        "LAY-4 LAY-5",
        ("CVE-2025-53630", "CVE-2026-27940"),
    ),
    Fault(
        "claim",
        "size that lies",
        "an exabyte claimed by 200 bytes, refused by the header alone",
        "Allocates by a number from the file.",
        "layout/claim-* layout/a-claim-* order/claim-* tensors/*-shape-1152921504606846976",
        "HDR-4 HDR-5 SHAPE-2 LAY-4",
        ("CVE-2026-7482",),
    ),
    Fault(
        "group-size",
        "limit",
        "group size 0, 65537, larger than K",
        "Division by zero, or a group of the wrong step.",
        "tensors/group-size-* limits/group-size-* tensors/*-groups-of-*",
        "TEN-4",
    ),
    Fault(
        "depth",
        "limit",
        "depth 0, 5",
        "A plane that is not there is read.",
        "tensors/depth-0 tensors/depth-5 tensors/depth-5-with-* tensors/depth-255 tensors/depth-[0-9][0-9]*",
        "TEN-2",
    ),
    Fault(
        "shift",
        "overflow",
        "shift making depth + shift 5, also where the sum wraps",
        "3^shift is not exact, or wraps.",
        "tensors/depth-*-shift-* tensors/depth-2-with-*",
        "TEN-3",
    ),
    Fault(
        "codebook-size",
        "size that lies",
        "codebook of 26, 28 entries",
        "Reads beyond the codebook.",
        "codebook/*-steps codebook/a-codebook-of-* codebook/binary*",
        "CB-1",
    ),
    Fault(
        "digest-count",
        "size that lies",
        "digest count not 3 + depth; digest of 31, 33 bytes",
        "A segment goes unchecked.",
        "entries/*digest*",
        "ENT-3",
    ),
    Fault(
        "dtype",
        "limit",
        "dtypes that are not in the table",
        "The size of an element is guessed.",
        "entries/*dtype* tensors/*dtype*",
        "RAW-1 TEN-5",
    ),
    Fault(
        "kind",
        "limit",
        "kinds of entries that are not in the table",
        "An entry is skipped.",
        "entries/*kind* order/*-another-kind-*",
        "ENT-2",
    ),
    # Layout
    Fault(
        "gap",
        "hidden data",
        "gap not zero, at each position",
        "Data hide between segments.",
        "layout/gap-* layout/*-gap-byte layout/a-byte-of-*",
        "LAY-3",
    ),
    Fault(
        "after-the-end",
        "hidden data",
        "bytes after the end: one byte, a whole zip",
        "One file is two formats.",
        "layout/*-after-* preamble/a-block-*",
        "PRE-6 LAY-4",
    ),
    Fault(
        "padding-missing",
        "truncation",
        "final padding missing",
        "Reads beyond the end.",
        "layout/*-padding-missing layout/the-last-* preamble/cut-to-*-with-its-size",
        "LAY-4",
    ),
    Fault(
        "moved",
        "wrong place",
        "segment of the right size in the wrong place",
        "Planes of one tensor are read for another.",
        "layout/aligned-* layout/rotated layout/*-the-other-way-round "
        "layout/tensor-by-tensor layout/levels-before-*",
        "LAY-4 SEG-1",
    ),
    Fault(
        "swapped",
        "wrong place",
        "two segments swapped with and without their digests",
        "Planes of one tensor are read for another.",
        "layout/*-swapped* digests/*swapped* digests/two-code-planes-*",
        "SEG-1",
    ),
    Fault(
        "segment-digest",
        "integrity",
        "segment or its digest changed",
        "Damaged weights are used.",
        "digests/*",
        "SEG-1",
    ),
    # Trits
    Fault(
        "byte-above-242",
        "unused value",
        "each byte 243..255 at first, middle, last position",
        "Decodes to some trits, and two readers see two.",
        "packing/byte-2[45]*-plane-* packing/byte-*-is-*",
        "PACK-2",
    ),
    Fault(
        "row-padding",
        "hidden data",
        "padding rows of +1, of -1",
        "Data hide in the padding; the bias was forgotten.",
        "packing/*-rows-* packing/the-padding-* packing/zeros-for-* packing/padding-*",
        "PACK-3",
    ),
    Fault(
        "other-packing",
        "wrong layout",
        "digits reversed; TQ1_0 bytes; 2-bit payload labelled base 3",
        "Other weights without an error.",
        "packing/digits-* packing/tq1-0 packing/two-bits-* packing/int8",
        "PACK-2 PACK-3",
    ),
    Fault(
        "boolean",
        "unused value",
        "booleans other than 0 and 1",
        "A byte that is neither true nor false.",
        "entries/bool-* entries/the-boolean-*",
        "RAW-2",
    ),
    # Codebook
    Fault(
        "nan",
        "unused value",
        "quiet, signalling, negative NaN; infinities",
        "Weights are NaN.",
        "codebook/*nan* codebook/*infinite*",
        "CB-2",
    ),
    Fault(
        "sign",
        "unused value",
        "negative steps; +0 and -0",
        "Two codes of one value, or weights of the other sign.",
        "codebook/*zero* codebook/*-step-that-is-0 codebook/*minus-0 codebook/a-negative-*",
        "CB-2",
    ),
    Fault(
        "subnormal",
        "unused value",
        "subnormal steps",
        "Hosts that flush them to 0 decode other weights.",
        "codebook/*subnormal*",
        "CB-2",
    ),
    Fault(
        "step-order",
        "ambiguity",
        "equal neighbours; decreasing steps",
        "One weight has two codes.",
        "codebook/step-*-equal codebook/step-*-less codebook/step-*-one-before codebook/the-steps-*",
        "CB-3",
    ),
    Fault(
        "low-bits",
        "rounding",
        "low six bits not zero",
        "Products are rounded, and hosts differ.",
        "codebook/*bit-* codebook/all-low-bits codebook/big-endian",
        "CB-4",
    ),
    Fault(
        "largest-value",
        "overflow",
        "largest step times H overflowing the tensor's dtype",
        "Weights are infinite.",
        "codebook/*largest-value-* limits/a-largest-value-*",
        "CB-5",
    ),
    # Valid ones, and what the checklist has no word for
    Fault(
        "version-twice",
        "version",
        "versions in preamble and header that differ",
        "A bit of the version goes unnoticed.",
        "header/version-* header/minor-*-in-the-preamble preamble/minor-*",
        "HDR-2",
    ),
    Fault(
        "several",
        "precedence",
        "several faults in one file",
        "Two readers name two requirements (SPEC 9 says which).",
        "order/*",
        "MP-1 MP-2 MP-4 MP-5 MP-6 HDR-4 HDR-5 ENT-1 ENT-2 VER-1",
    ),
    Fault(
        "other-limit",
        "limit",
        "counts of metadata and tensors around their limits and forms",
        "A limit is off by one.",
        "header/*1-025* limits/*-pairs limits/*-tensors order/claim-*",
        "HDR-4 HDR-5",
    ),
    Fault(
        "values",
        "arithmetic",
        "every depth, shift, group size, shape; ties, subnormals and both zeros",
        "Other weights without an error.",
        "tensors/*-groups-of-* tensors/rows-* tensors/every-* packing/byte-* "
        "limits/depth-* limits/the-file-* real/* spec/* tensors/trit-rank-*",
        "",
    ),
    Fault(
        "raw",
        "arithmetic",
        "raw tensors of every dtype",
        "Other elements without an error.",
        "entries/raw-*",
        "",
    ),
    Fault(
        "real",
        "arithmetic",
        "real weights, by each method of the reference encoder",
        "What occurs in practice is wrong.",
        "real/*",
        "",
    ),
]


# Cases


def all_cases() -> list[Case]:
    """Every case, sorted by id; ids and contents are unique."""
    found = sorted([*golden.cases(), *appendix_cases(), *real_cases()], key=lambda case: case.id)
    seen: dict[str | bytes, str] = {}
    for case in found:
        for what in (case.id, case.data):
            if what in seen:
                raise SystemExit(f"{case.id} and {seen[what]} are one case")
            seen[what] = case.id
    return found


def appendix_cases() -> Iterator[Case]:
    """The files that SPEC.md prints byte by byte, from the document."""
    spec = (ROOT / "SPEC.md").read_text("utf-8")
    for letter, why in {"A": "the smallest file", "B": "a file with two tensors"}.items():
        text = spec[spec.index(f"<!-- appendix {letter}:") : spec.index(f"<!-- end of appendix {letter} -->")]
        data = b""
        for offset, bytes_, zeros in re.findall(
            r"^ *([0-9]+)  ((?:[0-9A-F]{2} ?)+(?:\.\.\. 00 \(([0-9]+) bytes\))?)", text, re.M
        ):
            if int(offset) != len(data):
                raise SystemExit(f"SPEC.md, appendix {letter}: offset {offset} after {len(data)} bytes")
            data += bytes(int(zeros)) if zeros else bytes.fromhex(bytes_)
        yield Case(f"spec/appendix-{letter.lower()}", None, f"appendix {letter} of SPEC.md: {why}", data)


def real_cases() -> Iterator[Case]:
    """Slices of a real model: 11 rows, which is two byte rows and one, by 72 columns, 4 groups and a half."""
    methods: dict[str, Json] = {
        "optimal": {},
        "nested": {"nested": True},
        "tritllm-v2": {"method": "tritllm-v2"},
    }
    matrices = {
        n: a for n, a in load_file(MODEL).items() if a.ndim == 2 and a.dtype == np.float16 and len(a) > 11
    }
    for name, array in sorted(matrices.items()):
        depth = 1 + len(name) % 4
        trit = plain(quantize(array[:11, :72], depth))
        why = f"real weights: rows 0 to 10 and columns 0 to 71 of {name}, depth {depth}"
        yield Case(f"real/{golden.slug(name)}", None, why, independent.write({name: trit}, {"format": "pt"}))
    name, array = max(matrices.items())
    for method, options in methods.items():
        for depth in range(1, 5):
            if method != "nested" or depth > 1:  # nested at depth 1 is optimal
                trit = plain(quantize(array[11:18, 100:150], depth, group_size=17, **options))
                why = f"real weights, {method} at depth {depth}: rows 11 to 17, columns 100 to 149 of {name}"
                yield Case(f"real/{method}-depth-{depth}", None, why, independent.write({name: trit}))


def plain(tensor: TritTensor) -> Trit:
    """The same tensor in integers."""
    levels = tensor.levels().tolist()
    steps = tensor.codebook.view(np.uint32).tolist()
    codes, planes = tensor.codes.tolist(), planes_from(levels, tensor.depth)
    return Trit(list(tensor.shape), tensor.dtype, tensor.group_size, tensor.shift, steps, codes, planes)


# What they hold, by tests/independent.py


def decoded(data: bytes) -> Json:
    """What a valid file holds."""
    header, segments = independent.open_file(data)
    metadata, tensors = independent.read(data)
    offsets: dict[str, list[int]] = {entry["name"]: [] for entry in header["tensors"]}
    for segment in segments:  # those of one tensor come in their own order
        offsets[segment.entry["name"]].append(segment.offset)
    entries = {entry["name"]: entry for entry in header["tensors"]}
    return {
        "identity": data[32:64].hex(),
        "metadata": metadata,
        "version": header["version"],
        "tensors": [of_tensor(entries[name], offsets[name], tensor) for name, tensor in tensors.items()],
    }


def of_tensor(entry: Json, offsets: list[int], tensor: Trit | Raw) -> Json:
    """What the manifest says of a tensor."""
    found = {key: entry[key] for key in ("name", "kind", "dtype", "shape")} | {"offsets": offsets}
    if isinstance(tensor, Raw):
        return found | {"values": sha256(tensor.data).hexdigest()}
    found |= {key: entry[key] for key in ("depth", "shift", "group_size")}
    found |= {"codebook": entry["codebook"].hex(), "codes": digest(tensor.codes, 1)}
    return found | {"depths": {str(d): of_depth(tensor.cut(d)) for d in range(1, entry["depth"] + 1)}}


def of_depth(trit: Trit) -> Json:
    """Digests of the levels, and of the weights in each dtype; None where TEN-10 lets a reader refuse."""
    largest = 3**trit.shift * (3 ** len(trit.planes) - 1) // 2
    values = {
        dtype: None
        if independent.weight(trit.steps[26], largest, dtype) == INFINITY[dtype]
        else digest(trit.values(dtype), (1 + sum(FORMATS[dtype])) // 8)
        for dtype in FORMATS
    }
    return {"levels": digest(trit.levels(), 1), **values}


def digest(matrix: list[list[int]], width: int) -> str:
    """The SHA-256 of integers or bit patterns of *width* bytes, little-endian, in C order."""
    wrap = 256**width
    return sha256(b"".join((v % wrap).to_bytes(width, "little") for row in matrix for v in row)).hexdigest()


# Vectors: requests of docs/protocol.md and their results


def all_vectors() -> list[Json]:
    """Every vector, sorted by id; ids are unique."""
    found = [*packing_vectors(), *packing_errors(), *level_vectors(), *level_errors()]
    found += [vector(*parts) for parts in layout_vectors.vectors()]
    real = load_file(MODEL)[REAL_MATRIX][:8, :96].astype(np.float32).tolist()
    found += [vector(*parts) for parts in encode_vectors.vectors(real)]
    counts = Counter(vector["id"] for vector in found)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise SystemExit(f"several vectors are {twice[0]}")
    return sorted(found, key=lambda vector: str(vector["id"]))


def vector(name: str, cmd: str, request: Json, result: Json, why: str) -> Json:
    """A vector of the manifest."""
    return {"id": name, "cmd": cmd, "request": request, "result": result, "why": why}


def hexed(values: list[int]) -> str:
    """int8 in hexadecimal."""
    return bytes(value % 256 for value in values).hex()


def packing_vectors() -> Iterator[Json]:
    """Planes of every size around 5 rows, and every byte."""
    every = [[byte // 3**i % 3 - 1 for byte in range(243)] for i in range(5)]
    planes = {"every-byte": every, "one-trit": [[1]]}
    edges = [k * golden.ROWS_PER_BYTE + off for k in (1, 2) for off in (-1, 0, 1)]
    for rows in (1, 2, 3, *edges):
        for columns in (1, 7):
            cells = painted(rows * columns, 3)
            cut = [cells[r * columns : (r + 1) * columns] for r in range(rows)]
            planes[f"{rows}-rows-{columns}-columns"] = [[t - 1 for t in row] for row in cut]
    one_byte = planes["5-rows-1-columns"]
    for name, plane in planes.items():
        size = {"rows": len(plane), "columns": len(plane[0])}
        trits, packed = hexed([t for row in plane for t in row]), independent.pack(plane).hex()
        for cmd, old, new in [("pack", "trits", "packed"), ("unpack", "packed", "trits")]:
            fields = {"trits": trits, "packed": packed}
            if cmd == "unpack" and plane == one_byte:
                continue  # all bytes are below
            why = f"{size['rows']} rows by {size['columns']} columns"
            yield vector(f"packing/{cmd}-{name}", cmd, size | {old: fields[old]}, {new: fields[new]}, why)
    for rows, columns in [(0, 0), (0, 3), (3, 0)]:
        size = {"rows": rows, "columns": columns}
        for cmd, old, new in [("pack", "trits", "packed"), ("unpack", "packed", "trits")]:
            why = "a plane of no rows or no columns takes no bytes"
            yield vector(
                f"packing/{cmd}-{rows}-rows-{columns}-columns", cmd, size | {old: ""}, {new: ""}, why
            )
    for byte in range(243):
        size = {"rows": 5, "columns": 1}
        trits = hexed([row[byte] for row in every])
        request = size | {"packed": f"{byte:02x}"}
        yield vector(f"packing/unpack-byte-{byte}", "unpack", request, {"trits": trits}, f"the byte {byte}")


def packing_errors() -> Iterator[Json]:
    """Values that are no trits, wrong lengths, bytes above 242, and padding."""
    for value in (2, -2, 3, 127, -128):
        for at in (0, 5):
            trits = [0] * 6
            trits[at] = value
            request = {"rows": 6, "columns": 1, "trits": hexed(trits)}
            why = f"trit {at} is {value}"
            yield vector(
                f"packing/pack-trit-{at}-{value % 256:02x}", "pack", request, {"error": "TRIT-1"}, why
            )
    for byte in range(243, 256):
        for at in (0, 2):
            packed = [121] * 3
            packed[at] = byte
            request = {"rows": 5, "columns": 3, "packed": bytes(packed).hex()}
            why = f"byte {at} is {byte}"
            yield vector(f"packing/unpack-{at}-byte-{byte}", "unpack", request, {"error": "PACK-2"}, why)
    for rows in range(1, 5):
        for digit in range(rows, 5):
            for sign in (-1, 1):
                request = {"rows": rows, "columns": 1, "packed": f"{121 + sign * 3**digit:02x}"}
                name = f"packing/unpack-{rows}-rows-digit-{digit}-{'minus' if sign < 0 else 'plus'}"
                why = f"padding digit {digit} after {rows} rows is {sign:+}"
                yield vector(name, "unpack", request, {"error": "PACK-3"}, why)
    for rows, columns, length in [(5, 2, 1), (5, 2, 3), (6, 1, 1), (5, 1, 2), (1, 1, 0), (0, 1, 1)]:
        size = {"rows": rows, "columns": columns}
        name, why = f"{length}-bytes-for-{rows}-by-{columns}", f"{length} bytes for {rows} rows by {columns}"
        request = size | {"packed": "79" * length}
        yield vector(f"packing/unpack-{name}", "unpack", request, {"error": "PACK-1"}, why)
    for rows, columns, length in [(2, 3, 5), (2, 3, 7), (1, 1, 0), (0, 1, 1)]:
        request = {"rows": rows, "columns": columns, "trits": "00" * length}
        name, why = f"{length}-trits-for-{rows}-by-{columns}", f"{length} trits for {rows} rows by {columns}"
        yield vector(f"packing/pack-{name}", "pack", request, {"error": "PACK-1"}, why)


def level_vectors() -> Iterator[Json]:
    """Every level of every depth, alone and together; those of depth 3 are the 27 codes, less 13."""
    for depth in range(1, 5):
        H = (3**depth - 1) // 2
        groups = {"all": list(range(-H, H + 1))} | {f"{k + H:02}": [k] for k in range(-H, H + 1)}
        for name, levels in groups.items():
            planes = [
                hexed(list(plane))
                for plane in zip(*(independent.split(k, depth) for k in levels), strict=True)
            ]
            why = f"depth {depth}: " + (f"level {levels[0]}" if len(levels) == 1 else "all levels")
            why += f", code {levels[0] + 13}" if depth == 3 and len(levels) == 1 else ""
            request = {"depth": depth, "levels": hexed(levels)}
            yield vector(f"levels/split-{depth}-{name}", "split", request, {"planes": planes}, why)
            request = {"planes": planes}
            yield vector(f"levels/join-{depth}-{name}", "join", request, {"levels": hexed(levels)}, why)
        none = {"depth": depth, "levels": ""}
        yield vector(f"levels/split-{depth}-none", "split", none, {"planes": [""] * depth}, "no levels")
        yield vector(
            f"levels/join-{depth}-none", "join", {"planes": [""] * depth}, {"levels": ""}, "no levels"
        )


def level_errors() -> Iterator[Json]:
    """Levels beyond the depth, values that are no trits, and depths that are none."""
    for depth in range(1, 5):
        H = (3**depth - 1) // 2
        for level in (H + 1, -H - 1, 127, -128):
            request = {"depth": depth, "levels": hexed([0, level])}
            why = f"level {level} of depth {depth}"
            yield vector(
                f"levels/split-{depth}-beyond-{level % 256:02x}", "split", request, {"error": "TRIT-2"}, why
            )
        for value in (2, -2, 127, -128):
            planes = ["0000"] * (depth - 1) + [hexed([0, value])]
            why = f"{value} in the top plane of {depth}"
            yield vector(
                f"levels/join-{depth}-no-trit-{value % 256:02x}",
                "join",
                {"planes": planes},
                {"error": "TRIT-1"},
                why,
            )
    for depth in (0, 5, 6, -1, 255, 256 + 1, 2**32 + 1):
        request = {"depth": depth, "levels": "00"}
        name = f"levels/split-depth-{'minus-1' if depth < 0 else depth}"
        yield vector(name, "split", request, {"error": "TEN-2"}, f"depth {depth}")
    for count in (0, 5, 6):
        request = {"planes": ["00"] * count}
        yield vector(f"levels/join-{count}-planes", "join", request, {"error": "TEN-2"}, f"{count} planes")


# The manifest


def flags_of(name: str, clause: str | None) -> list[str]:
    """The flags of a case."""
    return [
        fault.flag
        for fault in FAULTS
        if clause is None or clause in fault.named.split()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in fault.patterns.split())
    ]


def verdict_of(clause: str | None) -> str:
    """What a verifier finds a file that breaks *clause*."""
    return "valid" if clause is None else "unsupported" if clause in UNSUPPORTED else "invalid"


def file_of(case: Case) -> str:
    """Where the file of a case stands, in fixtures/."""
    return f"{FOLDERS[case.clause is not None]}/{case.id}.trit"


def of_case(case: Case) -> Json:
    """What the manifest says of a case."""
    try:
        values = decoded(case.data) if case.clause is None else None
    except Broken as broken:
        raise SystemExit(f"{case.id} is not valid: {broken}") from None
    return {
        "id": case.id,
        "file": file_of(case),
        "sha256": sha256(case.data).hexdigest(),
        "version": VERSION,
        "verdict": verdict_of(case.clause),
        "clause": case.clause,
        "why": case.why,
        "flags": flags_of(case.id, case.clause),
        "decoded": values,
    }


# Products, by tests/matmul_cases.py


def product_files() -> tuple[list[Json], dict[str, bytes]]:
    """What the manifest says of golden products, and their files: weights, x, y and what else there is."""
    array = load_file(MODEL)[REAL_MATRIX][40:51, :72]
    real = {depth: plain(quantize(array, depth)) for depth in range(1, 5)}
    listed: list[Json] = []
    files: dict[str, bytes] = {}
    for case in matmul_cases.products(real):
        parts = {"weights": (".trit", independent.write({"w": case.weights}))}
        for part in ("x", "y", "scale", "dots"):
            if (content := getattr(case, part)) is not None:
                parts[part] = (f".{part}.npy", matmul_cases.npy(content))
        names = {part: f"{PRODUCTS}/{case.name}{ending}" for part, (ending, _) in parts.items()}
        digests = {names[part]: sha256(data).hexdigest() for part, (_, data) in parts.items()}
        dtype = next(name for name, known in matmul_cases.DTYPES.items() if case.x.dtype == known)
        listed.append(
            {"id": f"{PRODUCTS}/{case.name}", **names, "dtype": dtype, "sha256": digests, "why": case.why}
        )
        files |= {names[part]: data for part, (_, data) in parts.items()}
    return sorted(listed, key=lambda product: str(product["id"])), files


def manifest(cases: list[Case], products: list[Json]) -> Json:
    """The manifest of all cases, vectors and products."""
    vectors = all_vectors()
    verdicts = Counter(verdict_of(case.clause) for case in cases)
    counts = {name: verdicts[name] for name in ("valid", "invalid", "unsupported")}
    return {
        "format": FORMAT,
        "counts": counts | {"vectors": len(vectors), "products": len(products)},
        "notes": {
            f.flag: {
                "kind": f.kind,
                "description": f.words,
                "effect": f.effect,
                "cves": {cve: CVES[cve] for cve in f.cves},
            }
            for f in FAULTS
        },
        "cases": [of_case(case) for case in cases],
        "vectors": vectors,
        "products": products,
        "folders": folder_cases.section(CVES)[0],
    }


def dumped(content: Json) -> str:
    """JSON in ASCII, a line for each note, case, vector and product: a change is a small difference."""
    lines = [f' "format": {json.dumps(content["format"])}', f' "counts": {json.dumps(content["counts"])}']
    notes = ",\n".join(f"  {json.dumps(flag)}: {json.dumps(note)}" for flag, note in content["notes"].items())
    lines.append(f' "notes": {{\n{notes}\n }}')
    for key in ("cases", "vectors", "products"):
        rows = ",\n".join(f"  {json.dumps(row)}" for row in content[key])
        lines.append(f' "{key}": [\n{rows}\n ]')
    lines.append(f' "folders": {folder_cases.dumped(content["folders"])}')
    return "{\n" + ",\n".join(lines) + "\n}\n"


def made() -> dict[str, bytes]:
    """Every file by its place in fixtures/."""
    cases, (products, files) = all_cases(), product_files()
    files |= {file_of(case): case.data for case in cases} | folder_cases.section(CVES)[1]
    return files | {MANIFEST: dumped(manifest(cases, products)).encode()}


def stored(folder: Path = FIXTURES) -> set[str]:
    """Places of all files that stand where only this command writes."""
    names = (*FOLDERS, PRODUCTS, folder_cases.PLACE)
    places = [path for name in names for path in (folder / name).rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix() for path in places}


def differences(files: dict[str, bytes], folder: Path = FIXTURES) -> list[str]:
    """What in *folder* is not as it should be."""
    wrong = [f"{name}: not known" for name in sorted(stored(folder) - files.keys())]
    for name, data in files.items():
        path = folder / name
        if not path.is_file():
            wrong.append(f"{name}: missing")
        elif path.read_bytes() != data:
            wrong.append(f"{name}: other bytes")
    return wrong


def write(files: dict[str, bytes], folder: Path = FIXTURES) -> None:
    """Put all files into *folder*, and remove what does not belong there."""
    for name in stored(folder) - files.keys():
        (folder / name).unlink()
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def main() -> int:
    """Write or check; gives the exit status."""
    parser = argparse.ArgumentParser(description="Make the golden fixtures.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 where a file differs"
    )
    check = parser.parse_args().check
    files = made()
    if not check:
        write(files)
    wrong = differences(files)
    for line in wrong:
        print(line)
    if wrong:
        print(f"fixtures/ is not what this command makes; run: {COMMAND}")
        return 1
    counts = ", ".join(f"{n} {name}" for name, n in json.loads(files[MANIFEST])["counts"].items())
    print(f"fixtures: {counts}; {sum(map(len, files.values())):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
