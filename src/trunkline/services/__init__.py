"""Services join core's decisions with the ports; they hold no SQL and no sockets."""
