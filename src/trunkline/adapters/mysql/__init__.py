"""Hot tier on MySQL 8 or MariaDB 10.11 and newer."""
