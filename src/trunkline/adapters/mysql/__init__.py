"""Hot tier on MySQL 8 or MariaDB 10.11 and newer."""

from trunkline.adapters.mysql.settings import DatabaseSettings, Settings
from trunkline.adapters.mysql.stores import MysqlStores, migrate_mysql, open_mysql

__all__ = ["DatabaseSettings", "MysqlStores", "Settings", "migrate_mysql", "open_mysql"]
