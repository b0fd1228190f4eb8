"""The arguments of the compiled routines, as their C++ sources declare them, so that there is one declaration."""

import ctypes
import re
from pathlib import Path
from typing import Any

TYPES = {"int64_t": ctypes.c_int64, "double": ctypes.c_double, "void*": ctypes.c_void_p}


def fields_of(struct: str, source: Path, **structs: type[ctypes.Structure]) -> list[tuple[str, Any]]:
    """The fields of a `struct` that a C++ file declares, for `ctypes.Structure._fields_`.

    Args:
        struct: its name.
        source: the file.
        structs: other structs that are types of its fields, by name.

    Raises:
        ValueError: there is no such struct, or a field whose type is not known.
    """
    types = TYPES | structs
    found = re.search(rf"struct {struct} {{(.*?)\n}};", source.read_text(), re.S)
    if found is None:
        raise ValueError(f"{source.name} declares no struct {struct}")
    fields = []
    for line in re.sub(r"//[^\n]*", "", found[1]).split(";")[:-1]:
        kind, names = re.fullmatch(r"\s*(?:const )?(\w+ ?\*?)\s*([\w*, ]+)", line).groups()  # type: ignore[union-attr]
        if (kind := kind.replace(" ", "")) not in types:
            raise ValueError(f"{source.name}: field {names} of {struct} has the type {kind}, known: {', '.join(types)}")
        fields += [(name.strip(" *"), types[kind]) for name in names.split(",")]
    return fields
