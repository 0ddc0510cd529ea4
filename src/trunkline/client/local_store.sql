-- The local store of endpoints. Entries stand as runs: one row holds a contiguous run of up to
-- 256, at copy.number << 36 | its first seq, so that a copy's runs lie side by side in order.

-- What an endpoint holds of one store of a server, whose id is `store` (empty: not met yet).
-- `used` is highest in the part that was used last.
CREATE TABLE IF NOT EXISTS part (
    number INTEGER PRIMARY KEY,
    user BLOB NOT NULL,
    endpoint BLOB NOT NULL,
    store TEXT NOT NULL DEFAULT '',
    used INTEGER NOT NULL DEFAULT 0,
    cursor INTEGER NOT NULL DEFAULT 0,
    met BLOB,
    UNIQUE (user, endpoint, store)
);

CREATE TABLE IF NOT EXISTS copy (
    number INTEGER PRIMARY KEY,
    endpoint INTEGER NOT NULL,
    state BLOB NOT NULL
);

CREATE INDEX IF NOT EXISTS copy_of_endpoint ON copy (endpoint);

-- What was set apart of a part's copies; its runs lie at its number, as a copy's do. `settled`: it
-- was compared with the copy that came after it, and holds what differs.
CREATE TABLE IF NOT EXISTS apart (
    number INTEGER PRIMARY KEY,
    part INTEGER NOT NULL,
    state BLOB NOT NULL,
    settled INTEGER NOT NULL
);

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
