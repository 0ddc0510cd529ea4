-- Keys are unsigned 64 bit in the model; here minus 2^63, which keeps their order.
CREATE TABLE IF NOT EXISTS conversation (
    key INTEGER PRIMARY KEY,
    id TEXT NOT NULL COLLATE BINARY UNIQUE,
    kind TEXT NOT NULL,
    wrapped_key BLOB NOT NULL,
    head INTEGER NOT NULL,
    countable INTEGER NOT NULL,
    digest BLOB NOT NULL,
    archived_up_to INTEGER NOT NULL,
    trimmed_up_to INTEGER NOT NULL,
    membership_version INTEGER NOT NULL,
    member_count INTEGER NOT NULL,
    sealed_name BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS conversation_unarchived ON conversation (key)
WHERE head > archived_up_to;
CREATE TABLE IF NOT EXISTS message (
    key INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    sender TEXT NOT NULL COLLATE BINARY,
    client_message_id TEXT NOT NULL COLLATE BINARY,
    kind TEXT NOT NULL,
    time_ms INTEGER NOT NULL,
    refers_to INTEGER NOT NULL,
    countable INTEGER NOT NULL,
    entry_hash BLOB NOT NULL,
    digest BLOB NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (key, seq)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS idempotency (
    key INTEGER NOT NULL,
    sender TEXT NOT NULL COLLATE BINARY,
    client_message_id TEXT NOT NULL COLLATE BINARY,
    seq INTEGER NOT NULL,
    time_ms INTEGER NOT NULL, -- the store's age; of 0.1.0: milliseconds since 1970
    PRIMARY KEY (key, sender, client_message_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS member (
    key INTEGER NOT NULL,
    user TEXT NOT NULL COLLATE BINARY,
    visible_from INTEGER NOT NULL,
    digest_before BLOB NOT NULL,
    countable_before INTEGER NOT NULL,
    left_at INTEGER NOT NULL,
    left_digest BLOB NOT NULL,
    left_countable INTEGER NOT NULL,
    marker INTEGER NOT NULL,
    marker_countable INTEGER NOT NULL,
    mac BLOB NOT NULL DEFAULT x'',
    PRIMARY KEY (key, user)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS user_conversation (
    user TEXT NOT NULL COLLATE BINARY,
    key INTEGER NOT NULL,
    id TEXT NOT NULL COLLATE BINARY,
    version INTEGER NOT NULL,
    PRIMARY KEY (user, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS endpoint_offset (
    user TEXT NOT NULL COLLATE BINARY,
    endpoint TEXT NOT NULL COLLATE BINARY,
    key INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (user, endpoint, key)
) WITHOUT ROWID;
-- `journal_id`: every commit up to here stands in these tables. `version`: the highest
-- version of a user_conversation that was given out up to there.
CREATE TABLE IF NOT EXISTS watermark (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    journal_id INTEGER NOT NULL,
    version INTEGER NOT NULL
);
INSERT OR IGNORE INTO watermark VALUES (1, 0, 0);
-- The store's age in milliseconds, by which ids expire: it moves on while the store is open, and
-- no clock sets it. Over rows that bear a time instead it begins with the oldest, so that all of
-- them stay for as long again.
CREATE TABLE IF NOT EXISTS age (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    age_ms INTEGER NOT NULL
);
INSERT OR IGNORE INTO age
SELECT 1, (SELECT coalesce(min(time_ms), 0) FROM idempotency)
WHERE NOT EXISTS (SELECT * FROM age);
