"""The cold tier on HBase, through its Thrift 2 server (DESIGN section 5)."""

from trunkline.adapters.hbase.migrate import migrate_hbase
from trunkline.adapters.hbase.opening import HbaseTier, open_hbase
from trunkline.adapters.hbase.settings import Settings

__all__ = ["HbaseTier", "Settings", "migrate_hbase", "open_hbase"]
