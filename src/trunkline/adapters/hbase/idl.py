"""The structs and calls of HBase's Thrift 2 service, loaded from `hbase.thrift`."""

from importlib.resources import files
from io import StringIO
from typing import Any, Final

import thriftpy2

_text = files("trunkline.adapters.hbase").joinpath("hbase.thrift").read_text(encoding="utf-8")
idl: Final[Any] = thriftpy2.load_fp(
    StringIO(_text), module_name="trunkline.adapters.hbase.idl_thrift"
)
"""What the file declares, as classes. Its types are made at run time, hence `Any`."""

Struct = Any
"""An instance of a struct of the file."""
