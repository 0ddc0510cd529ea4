CREATE TABLE IF NOT EXISTS segment (
    key INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    digest BLOB NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (key, first, last)
);
CREATE TABLE IF NOT EXISTS metadata (
    key INTEGER PRIMARY KEY,
    body BLOB NOT NULL
);
