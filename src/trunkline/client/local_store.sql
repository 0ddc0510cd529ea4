-- The local store of endpoints. Entries stand as runs: one row holds a contiguous run of up to
-- 256, at copy.number << 36 | its first seq, so that a copy's runs lie side by side in order.

CREATE TABLE IF NOT EXISTS endpoint (
    number INTEGER PRIMARY KEY,
    user BLOB NOT NULL,
    endpoint BLOB NOT NULL,
    cursor INTEGER NOT NULL DEFAULT 0,
    UNIQUE (user, endpoint)
);

CREATE TABLE IF NOT EXISTS copy (
    number INTEGER PRIMARY KEY,
    endpoint INTEGER NOT NULL,
    state BLOB NOT NULL
);

CREATE INDEX IF NOT EXISTS copy_of_endpoint ON copy (endpoint);

CREATE TABLE IF NOT EXISTS run (
    position INTEGER PRIMARY KEY,
    entries BLOB NOT NULL
);

CREATE TABLE IF NOT EXISTS outbox (
    endpoint INTEGER NOT NULL,
    number INTEGER NOT NULL,
    frame BLOB NOT NULL,
    PRIMARY KEY (endpoint, number)
) WITHOUT ROWID;
