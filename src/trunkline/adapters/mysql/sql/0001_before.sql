-- Version 1 of a hot database. Ids are bytes: the usual collations hold `José` and `jose` equal.
-- A client message id is in its short form, an entry's kind is a number (core/compact.py).
CREATE TABLE IF NOT EXISTS conversation (
    ckey BIGINT UNSIGNED NOT NULL PRIMARY KEY,
    id VARBINARY(200) NOT NULL UNIQUE,
    kind VARBINARY(16) NOT NULL,
    wrapped_key VARBINARY(255) NOT NULL,
    head BIGINT UNSIGNED NOT NULL,
    countable BIGINT UNSIGNED NOT NULL,
    digest BINARY(16) NOT NULL,
    archived_up_to BIGINT UNSIGNED NOT NULL,
    trimmed_up_to BIGINT UNSIGNED NOT NULL,
    membership_version BIGINT UNSIGNED NOT NULL,
    member_count INT UNSIGNED NOT NULL,
    sealed_name VARBINARY(4096) NOT NULL
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS message (
    ckey BIGINT UNSIGNED NOT NULL,
    seq BIGINT UNSIGNED NOT NULL,
    sender VARBINARY(64) NOT NULL,
    client_message_id VARBINARY(64) NOT NULL,
    kind TINYINT UNSIGNED NOT NULL,
    time_ms BIGINT NOT NULL,
    refers_to BIGINT UNSIGNED,
    countable BIGINT UNSIGNED NOT NULL,
    entry_hash BINARY(16) NOT NULL,
    digest BINARY(16) NOT NULL,
    sealed MEDIUMBLOB NOT NULL,
    PRIMARY KEY (ckey, seq)
) ENGINE = InnoDB;

-- `stored_at` is the database's age (age.py): no clock alone makes an id expire.
CREATE TABLE IF NOT EXISTS idempotency (
    ckey BIGINT UNSIGNED NOT NULL,
    sender VARBINARY(64) NOT NULL,
    client_message_id VARBINARY(64) NOT NULL,
    seq BIGINT UNSIGNED NOT NULL,
    stored_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    PRIMARY KEY (ckey, sender, client_message_id)
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS member (
    ckey BIGINT UNSIGNED NOT NULL,
    user VARBINARY(64) NOT NULL,
    visible_from BIGINT UNSIGNED NOT NULL,
    digest_before BINARY(16) NOT NULL,
    countable_before BIGINT UNSIGNED NOT NULL,
    left_at BIGINT UNSIGNED NOT NULL,
    left_digest BINARY(16) NOT NULL,
    left_countable BIGINT UNSIGNED NOT NULL,
    marker BIGINT UNSIGNED NOT NULL,
    marker_countable BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (ckey, user)
) ENGINE = InnoDB;

-- What a conversation's transaction has to tell a user's list, which may stand in another
-- database: a row stays until it was told there. Telling twice is harmless.
CREATE TABLE IF NOT EXISTS outbox (
    number BIGINT UNSIGNED NOT NULL PRIMARY KEY,
    user VARBINARY(64) NOT NULL,
    ckey BIGINT UNSIGNED NOT NULL,
    id VARBINARY(200) NOT NULL,
    stored_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
) ENGINE = InnoDB;

-- The shards that this database holds; a takeover raises the epoch.
CREATE TABLE IF NOT EXISTS shard (
    shard SMALLINT UNSIGNED NOT NULL PRIMARY KEY,
    epoch BIGINT UNSIGNED NOT NULL
) ENGINE = InnoDB;

-- `version`: the highest that was given out for the user's conversation list.
CREATE TABLE IF NOT EXISTS user_version (
    user VARBINARY(64) NOT NULL PRIMARY KEY,
    version BIGINT UNSIGNED NOT NULL
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS user_conversation (
    user VARBINARY(64) NOT NULL,
    ckey BIGINT UNSIGNED NOT NULL,
    id VARBINARY(200) NOT NULL,
    version BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (user, ckey),
    KEY by_version (user, version),
    KEY by_key (ckey)
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS endpoint_offset (
    user VARBINARY(64) NOT NULL,
    endpoint VARBINARY(64) NOT NULL,
    ckey BIGINT UNSIGNED NOT NULL,
    seq BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (user, endpoint, ckey),
    KEY by_key (ckey)
) ENGINE = InnoDB;

-- A conversation whose head is beyond archived_up_to, by the database's time.
CREATE TABLE IF NOT EXISTS archive_task (
    ckey BIGINT UNSIGNED NOT NULL PRIMARY KEY,
    waiting_since TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
    token BIGINT UNSIGNED NOT NULL DEFAULT 0,
    not_before_ms BIGINT NOT NULL DEFAULT 0,
    attempts INT UNSIGNED NOT NULL DEFAULT 0,
    error VARBINARY(64) NOT NULL DEFAULT '',
    KEY by_wait (waiting_since, ckey)
) ENGINE = InnoDB;

-- What all workers must agree on.
CREATE TABLE IF NOT EXISTS deployment (
    name VARBINARY(64) NOT NULL PRIMARY KEY,
    value VARBINARY(1024) NOT NULL
) ENGINE = InnoDB;
