-- Every statement of the MySQL adapter by its name. `{…}` stands for a list of literals.

-- name: conversations_by_id
SELECT ckey, id, kind, wrapped_key, head, countable, digest, archived_up_to, trimmed_up_to,
    membership_version, member_count, sealed_name
FROM conversation WHERE id IN ({ids})

-- name: conversations
SELECT ckey, id, kind, wrapped_key, head, countable, digest, archived_up_to, trimmed_up_to,
    membership_version, member_count, sealed_name
FROM conversation WHERE ckey IN ({keys})

-- name: conversations_locked
SELECT ckey, id, kind, wrapped_key, head, countable, digest, archived_up_to, trimmed_up_to,
    membership_version, member_count, sealed_name
FROM conversation WHERE ckey IN ({keys}) ORDER BY ckey FOR UPDATE

-- name: conversations_settled
SELECT ckey FROM conversation WHERE id IN ({ids}) ORDER BY id FOR UPDATE

-- name: conversations_free
SELECT ckey, id, kind, wrapped_key, head, countable, digest, archived_up_to, trimmed_up_to,
    membership_version, member_count, sealed_name
FROM conversation WHERE ckey IN ({keys}) ORDER BY ckey FOR UPDATE SKIP LOCKED

-- name: shards_held
SELECT shard, epoch FROM shard WHERE shard IN ({shards}) ORDER BY shard LOCK IN SHARE MODE

-- name: shards
SELECT shard, epoch FROM shard

-- name: shards_counted
SELECT COUNT(*) FROM shard WHERE shard BETWEEN {first} AND {last}

-- name: shard_insert
INSERT INTO shard (shard, epoch) VALUES {rows} ON DUPLICATE KEY UPDATE epoch = epoch

-- name: keys_of
SELECT id, ckey FROM conversation WHERE id IN ({ids})

-- name: members_of
SELECT ckey, user, visible_from, digest_before, countable_before, left_at, left_digest,
    left_countable, marker, marker_countable, mac
FROM member WHERE (ckey, user) IN ({pairs})

-- name: members
SELECT ckey, user, visible_from, digest_before, countable_before, left_at, left_digest,
    left_countable, marker, marker_countable, mac
FROM member WHERE ckey = {key}

-- name: views
SELECT c.ckey, c.id, c.kind, c.wrapped_key, c.head, c.countable, c.digest, c.archived_up_to,
    c.trimmed_up_to, c.membership_version, c.member_count, c.sealed_name,
    m.ckey, m.user, m.visible_from, m.digest_before, m.countable_before, m.left_at, m.left_digest,
    m.left_countable, m.marker, m.marker_countable, m.mac
FROM conversation c JOIN member m ON m.ckey = c.ckey AND m.user = {user}
WHERE c.id IN ({ids})

-- name: known
SELECT ckey, sender, client_message_id, seq FROM idempotency WHERE {identities}

-- name: known_pair
(ckey = {key} AND sender = {sender} AND client_message_id IN ({ids}))

-- name: part
SELECT c.head, c.trimmed_up_to, m.seq, m.sender, m.client_message_id, m.kind, m.time_ms,
    m.refers_to, m.countable, m.entry_hash, m.digest, m.sealed
FROM conversation c
LEFT JOIN message m ON m.ckey = c.ckey AND m.seq > {after} AND m.seq <= {up_to}
    AND m.seq > c.trimmed_up_to
WHERE c.ckey = {key} ORDER BY m.seq

-- name: conversation_insert
INSERT INTO conversation (ckey, id, kind, wrapped_key, head, countable, digest, archived_up_to,
    trimmed_up_to, membership_version, member_count, sealed_name)
VALUES {rows}

-- name: conversation_update
INSERT INTO conversation (ckey, id, kind, wrapped_key, head, countable, digest, archived_up_to,
    trimmed_up_to, membership_version, member_count, sealed_name)
VALUES {rows}
ON DUPLICATE KEY UPDATE head = VALUES(head), countable = VALUES(countable),
    digest = VALUES(digest), membership_version = VALUES(membership_version),
    member_count = VALUES(member_count), sealed_name = VALUES(sealed_name)

-- name: message_insert
INSERT INTO message (ckey, seq, sender, client_message_id, kind, time_ms, refers_to, countable,
    entry_hash, digest, sealed)
VALUES {rows}

-- name: idempotency_insert
INSERT INTO idempotency (ckey, sender, client_message_id, seq, stored_at) VALUES {rows}

-- name: member_put
INSERT INTO member (ckey, user, visible_from, digest_before, countable_before, left_at,
    left_digest, left_countable, marker, marker_countable, mac)
VALUES {rows}
ON DUPLICATE KEY UPDATE visible_from = VALUES(visible_from),
    digest_before = VALUES(digest_before), countable_before = VALUES(countable_before),
    left_at = VALUES(left_at), left_digest = VALUES(left_digest),
    left_countable = VALUES(left_countable), marker = VALUES(marker),
    marker_countable = VALUES(marker_countable), mac = VALUES(mac)

-- name: member_mac
UPDATE member SET mac = {mac} WHERE ckey = {key} AND user = {user}

-- name: outbox_insert
INSERT INTO outbox (number, user, ckey, id) VALUES {rows}

-- name: outbox_delete
DELETE FROM outbox WHERE number IN ({numbers})

-- name: outbox_left
SELECT number, user, ckey, id FROM outbox
WHERE number > {after} AND stored_at < CURRENT_TIMESTAMP - INTERVAL {seconds} SECOND
ORDER BY number LIMIT {limit}

-- name: outbox_of_user
SELECT number, user, ckey, id FROM outbox WHERE user = {user} LIMIT {limit}

-- name: user_version_raise
INSERT INTO user_version (user, version) VALUES {rows}
ON DUPLICATE KEY UPDATE version = version + 1

-- name: user_versions
SELECT user, version FROM user_version WHERE user IN ({users})

-- name: user_conversation_put
INSERT INTO user_conversation (user, ckey, id, version) VALUES {rows}
ON DUPLICATE KEY UPDATE version = VALUES(version)

-- name: conversations_of
SELECT id, ckey, version FROM user_conversation
WHERE user = {user} AND version > {version} ORDER BY version

-- name: offsets
SELECT ckey, seq FROM endpoint_offset WHERE user = {user} AND endpoint = {endpoint}

-- name: offset_put
INSERT INTO endpoint_offset (user, endpoint, ckey, seq) VALUES {rows}
ON DUPLICATE KEY UPDATE seq = GREATEST(seq, VALUES(seq))

-- name: trimmed
UPDATE conversation SET trimmed_up_to =
    GREATEST(trimmed_up_to, LEAST({up_to}, archived_up_to, trimmed_up_to + {most}))
WHERE ckey = {key}

-- name: message_trim
DELETE FROM message
WHERE ckey = {key} AND seq <= (SELECT trimmed_up_to FROM conversation WHERE ckey = {key})

-- name: task_insert
INSERT INTO archive_task (ckey) VALUES {rows} ON DUPLICATE KEY UPDATE attempts = attempts

-- name: tasks_free
SELECT waiting_since, ckey FROM archive_task
WHERE not_before_ms <= TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000
ORDER BY waiting_since, ckey LIMIT {limit}

-- name: tasks_taken
SELECT ckey, attempts FROM archive_task
WHERE ckey IN ({keys})
    AND not_before_ms <= TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000
FOR UPDATE SKIP LOCKED

-- name: task_lease
UPDATE archive_task SET token = {token},
    not_before_ms = TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000 + {lease_ms}
WHERE ckey IN ({keys})

-- name: tasks_held
SELECT ckey, token FROM archive_task WHERE ckey IN ({keys}) FOR UPDATE

-- name: archived
UPDATE conversation SET archived_up_to = GREATEST(archived_up_to, LEAST({up_to}, head))
WHERE ckey = {key}

-- name: task_delete
DELETE FROM archive_task WHERE ckey IN ({keys})

-- name: task_failed
UPDATE archive_task
SET token = 0, attempts = attempts + 1, error = {error},
    not_before_ms = TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000 + {pause_ms}
WHERE ckey = {key} AND token = {token}

-- name: task_give_back
UPDATE archive_task SET token = 0, not_before_ms = 0 WHERE ckey = {key} AND token = {token}

-- name: tasks_waiting
SELECT count(*), COALESCE(GREATEST(0, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))
    / 1000000 - MIN(UNIX_TIMESTAMP(waiting_since))), 0)
FROM archive_task

-- name: idempotency_step
SELECT ckey, sender, client_message_id FROM idempotency
WHERE ckey > {key}
    OR ckey = {key} AND sender > {sender}
    OR ckey = {key} AND sender = {sender} AND client_message_id > {id}
ORDER BY ckey, sender, client_message_id LIMIT 1 OFFSET {rows}

-- name: idempotency_old
SELECT ckey, sender, client_message_id FROM (
    SELECT ckey, sender, client_message_id, stored_at FROM idempotency
    WHERE ckey > {key}
        OR ckey = {key} AND sender > {sender}
        OR ckey = {key} AND sender = {sender} AND client_message_id > {id}
    ORDER BY ckey, sender, client_message_id LIMIT {rows}
) AS step
WHERE stored_at < TIMESTAMP({age}) - INTERVAL {days} DAY

-- name: idempotency_delete
DELETE FROM idempotency WHERE ckey = {key} AND sender = {sender} AND client_message_id = {id}
    AND stored_at < TIMESTAMP({age}) - INTERVAL {days} DAY

-- name: age
SELECT value, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000
FROM deployment WHERE name = {key}

-- name: clock
SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000

-- name: tables
SHOW TABLES

-- name: schema_table
SHOW TABLES LIKE 'schema_step'

-- name: schema_create
CREATE TABLE IF NOT EXISTS schema_step (
    version INT NOT NULL,
    phase VARBINARY(8) NOT NULL,
    made_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    PRIMARY KEY (version, phase)
) ENGINE = InnoDB

-- name: schema_steps
SELECT MAX(version), phase FROM schema_step GROUP BY phase

-- name: schema_made
INSERT INTO schema_step (version, phase) VALUES ({version}, {phase})

-- name: schema_holders_locking
SELECT t.processlist_id, COALESCE(t.processlist_user, ''), COALESCE(t.processlist_time, 0)
FROM performance_schema.metadata_locks m
JOIN performance_schema.threads t ON t.thread_id = m.owner_thread_id
WHERE m.object_schema = DATABASE() AND m.lock_status = 'GRANTED' AND t.processlist_id IS NOT NULL
    AND t.processlist_id NOT IN (CONNECTION_ID(), {own})
GROUP BY 1, 2, 3 ORDER BY 3 DESC LIMIT 5

-- name: schema_holders_open
SELECT p.id, p.user, p.time
FROM information_schema.innodb_trx t
JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id
WHERE p.db = DATABASE() AND p.id NOT IN (CONNECTION_ID(), {own})
ORDER BY t.trx_started LIMIT 5

-- name: schema_holders_idle
SELECT id, user, time FROM information_schema.processlist
WHERE db = DATABASE() AND id NOT IN (CONNECTION_ID(), {own}) AND command = 'Sleep'
ORDER BY time DESC LIMIT 5

-- name: session_number
SELECT CONNECTION_ID()

-- name: sessions_without_room
SELECT id FROM information_schema.processlist
WHERE state IN ('Waiting for someone to free space', 'Waiting for disk space') LIMIT 1

-- name: lock_take
SELECT GET_LOCK({lock}, {seconds})

-- name: lock_release
SELECT RELEASE_LOCK({lock})

-- name: variables
SHOW GLOBAL VARIABLES WHERE Variable_name IN ('version', 'log_bin', 'sync_binlog',
    'innodb_flush_log_at_trx_commit', 'innodb_doublewrite', 'innodb_rollback_on_timeout')

-- name: deployment_put
INSERT INTO deployment (name, value) VALUES ({key}, {value})
ON DUPLICATE KEY UPDATE value = value

-- name: deployment_replace
UPDATE deployment SET value = {value} WHERE name = {key} AND value = {old}

-- name: deployment
SELECT value FROM deployment WHERE name = {key}

-- name: deployment_locked
SELECT value FROM deployment WHERE name = {key} FOR UPDATE

-- name: deployment_shared
SELECT value FROM deployment WHERE name = {key} LOCK IN SHARE MODE

-- name: deployment_set
UPDATE deployment SET value = {value} WHERE name = {key}

-- name: keks
SELECT LEFT(wrapped_key, {bytes}) AS header, COUNT(*) FROM conversation GROUP BY header

-- name: wrapped_otherwise
SELECT ckey, id, kind, wrapped_key, head, countable, digest, archived_up_to, trimmed_up_to,
    membership_version, member_count, sealed_name
FROM conversation
WHERE ckey >= {first} AND LENGTH(wrapped_key) > 0 AND LEFT(wrapped_key, {bytes}) <> {header}
ORDER BY ckey LIMIT {limit}

-- name: rewrap
UPDATE conversation SET wrapped_key = {new} WHERE ckey = {key} AND wrapped_key = {old}

-- name: shred
UPDATE conversation SET wrapped_key = '', sealed_name = '' WHERE ckey = {key}

-- name: snapshot_start
START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY

-- name: inspect_keys
SELECT DISTINCT ckey FROM {table} WHERE ckey >= {first} ORDER BY ckey LIMIT {limit}

-- name: inspect_outside
SELECT DISTINCT ckey FROM {table} WHERE ckey < {first} OR ckey > {last} ORDER BY ckey LIMIT {limit}

-- name: inspect_messages
SELECT seq, sender, client_message_id, kind, time_ms, refers_to, countable, entry_hash, digest,
    sealed
FROM message WHERE ckey = {key} AND seq >= {first} ORDER BY seq LIMIT {limit}

-- name: inspect_known_ids
SELECT sender, client_message_id, seq FROM idempotency
WHERE ckey = {key} AND (sender > {sender} OR (sender = {sender} AND client_message_id >= {id}))
ORDER BY sender, client_message_id LIMIT {limit}

-- name: inspect_listings
SELECT user, id, version FROM user_conversation WHERE ckey = {key} ORDER BY user

-- name: inspect_offsets
SELECT user, endpoint, seq FROM endpoint_offset WHERE ckey = {key} ORDER BY user, endpoint

-- name: inspect_outbox
SELECT ckey, user, id FROM outbox

-- name: inspect_versions
SELECT c.user, MAX(c.version), COALESCE(MAX(v.version), 0)
FROM user_conversation c LEFT JOIN user_version v ON v.user = c.user
WHERE c.user >= {first} GROUP BY c.user ORDER BY c.user LIMIT {limit}

-- name: inspect_users
SELECT DISTINCT user FROM {table} WHERE user >= {first} ORDER BY user LIMIT {limit}

-- name: check_table
CHECK TABLE {table}

-- name: user_version_reach
INSERT INTO user_version (user, version) VALUES {rows}
ON DUPLICATE KEY UPDATE version = GREATEST(version, VALUES(version))

-- name: user_conversation_reach
INSERT INTO user_conversation (user, ckey, id, version) VALUES {rows}
ON DUPLICATE KEY UPDATE version = GREATEST(version, VALUES(version))
