"""The cold tier on HBase, through its Thrift 2 server (DESIGN section 5)."""
