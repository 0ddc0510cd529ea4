-- Every statement of the embedded store by its name; sql.py reads them.

-- name: journal_insert
INSERT INTO journal (id, entries, time_ms, floor, body) VALUES (?, ?, ?, ?, ?);

-- name: journal_after
SELECT id, entries, time_ms, body FROM journal WHERE id > ? AND id <= ? ORDER BY id LIMIT 64;

-- name: journal_range
SELECT coalesce(min(id), 0), coalesce(max(id), 0), count(*) FROM journal WHERE id > ?;

-- name: journal_first
SELECT coalesce(min(id), 1) FROM journal;

-- name: journal_delete
DELETE FROM journal WHERE id IN (SELECT id FROM journal WHERE id <= ? ORDER BY id LIMIT 64);

-- name: watermark
SELECT journal_id, version FROM watermark;

-- name: watermark_move
UPDATE watermark SET journal_id = max(journal_id, ?), version = max(version, ?);

-- name: age
SELECT age_ms FROM age;

-- name: age_move
UPDATE age SET age_ms = max(age_ms, ?);

-- name: conversation_by_id
SELECT key, id, kind, wrapped_key, head, countable, digest, archived_up_to, trimmed_up_to,
    membership_version, member_count, sealed_name
FROM conversation WHERE id = ?;

-- name: conversation_by_key
SELECT key, id, kind, wrapped_key, head, countable, digest, archived_up_to, trimmed_up_to,
    membership_version, member_count, sealed_name
FROM conversation WHERE key = ?;

-- name: member
SELECT user, visible_from, digest_before, countable_before, left_at, left_digest,
    left_countable, marker, marker_countable, mac
FROM member WHERE key = ? AND user = ?;

-- name: member_columns
PRAGMA table_info(member);

-- name: member_add_mac
ALTER TABLE member ADD COLUMN mac BLOB NOT NULL DEFAULT x'';

-- name: members
SELECT user, visible_from, digest_before, countable_before, left_at, left_digest,
    left_countable, marker, marker_countable, mac
FROM member WHERE key = ? ORDER BY user;

-- name: views
SELECT c.key, c.id, c.kind, c.wrapped_key, c.head, c.countable, c.digest, c.archived_up_to,
    c.trimmed_up_to, c.membership_version, c.member_count, c.sealed_name,
    m.user, m.visible_from, m.digest_before, m.countable_before, m.left_at, m.left_digest,
    m.left_countable, m.marker, m.marker_countable, m.mac
FROM json_each(?) AS asked
CROSS JOIN conversation AS c ON c.id = asked.value
CROSS JOIN member AS m ON m.key = c.key AND m.user = ?;

-- name: highest_client_message_id
SELECT max(client_message_id) FROM idempotency WHERE key = ? AND sender = ?;

-- name: known
SELECT seq FROM idempotency WHERE key = ? AND sender = ? AND client_message_id = ?;

-- name: messages
SELECT seq, sender, client_message_id, kind, time_ms, refers_to, countable, entry_hash, digest,
    sealed
FROM message WHERE key = ? AND seq > ? AND seq <= ? ORDER BY seq;

-- name: conversations_of
SELECT id, key, version FROM user_conversation WHERE user = ? AND version > ?;

-- name: offsets
SELECT key, seq FROM endpoint_offset WHERE user = ? AND endpoint = ?;

-- name: unarchived
SELECT key, (
    SELECT time_ms FROM message WHERE message.key = conversation.key AND seq = archived_up_to + 1
) AS since_ms
FROM conversation WHERE head > archived_up_to AND length(wrapped_key) > 0 ORDER BY since_ms, key;

-- name: conversation_put
INSERT INTO conversation (key, id, kind, wrapped_key, head, countable, digest, archived_up_to,
    trimmed_up_to, membership_version, member_count, sealed_name)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET
    head = excluded.head, countable = excluded.countable, digest = excluded.digest,
    wrapped_key = excluded.wrapped_key,
    archived_up_to = max(archived_up_to, excluded.archived_up_to),
    trimmed_up_to = max(trimmed_up_to, excluded.trimmed_up_to),
    membership_version = excluded.membership_version, member_count = excluded.member_count,
    sealed_name = excluded.sealed_name;

-- name: conversation_head
UPDATE conversation SET head = ?, countable = ?, digest = ? WHERE key = ?;

-- name: conversation_marks
UPDATE conversation SET archived_up_to = max(archived_up_to, ?),
    trimmed_up_to = max(trimmed_up_to, ?)
WHERE key = ?;

-- name: wrapped_headers
SELECT coalesce(substr(wrapped_key, 1, ?), x''), count(*) FROM conversation GROUP BY 1;

-- name: wrapped_otherwise
SELECT key, id, kind, wrapped_key, head, countable, digest, archived_up_to, trimmed_up_to,
    membership_version, member_count, sealed_name
FROM conversation
WHERE key >= ? AND length(wrapped_key) > 0 AND substr(wrapped_key, 1, ?) <> ?
ORDER BY key LIMIT ?;

-- name: trimmed
SELECT c.key, c.trimmed_up_to FROM json_each(?) AS asked
CROSS JOIN conversation AS c ON c.key = asked.value
WHERE c.trimmed_up_to > 0;

-- name: message_put
INSERT OR REPLACE INTO message (key, seq, sender, client_message_id, kind, time_ms, refers_to,
    countable, entry_hash, digest, sealed)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: first_message
SELECT min(seq) FROM message WHERE key = ?;

-- name: message_trim
DELETE FROM message WHERE key = ? AND seq <= ?;

-- name: idempotency_put
INSERT OR REPLACE INTO idempotency (key, sender, client_message_id, seq, time_ms)
VALUES (?, ?, ?, ?, ?);

-- name: idempotency_step
SELECT key, sender, client_message_id FROM idempotency
WHERE (key, sender, client_message_id) > (?, ?, ?)
ORDER BY key, sender, client_message_id LIMIT 1 OFFSET ?;

-- name: idempotency_sweep
DELETE FROM idempotency
WHERE (key, sender, client_message_id) > (?, ?, ?)
    AND (key, sender, client_message_id) <= (?, ?, ?) AND time_ms < ?;

-- name: member_put
INSERT OR REPLACE INTO member (key, user, visible_from, digest_before, countable_before, left_at,
    left_digest, left_countable, marker, marker_countable, mac)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: member_marker
UPDATE member SET marker = ?, marker_countable = ? WHERE key = ? AND user = ? AND marker < ?;

-- name: user_conversation_put
INSERT INTO user_conversation (user, key, id, version) VALUES (?, ?, ?, ?)
ON CONFLICT (user, key) DO UPDATE SET version = max(version, excluded.version);

-- name: offset_put
INSERT INTO endpoint_offset (user, endpoint, key, seq) VALUES (?, ?, ?, ?)
ON CONFLICT (user, endpoint, key) DO UPDATE SET seq = max(seq, excluded.seq);

-- name: segment_put
INSERT OR REPLACE INTO segment (key, first, last, digest, sealed) VALUES (?, ?, ?, ?, ?);

-- name: segment_last_row
SELECT coalesce(max(rowid), 0) FROM segment;

-- name: segments
SELECT key, first, last, digest, sealed FROM segment
WHERE key = ? AND first > ? AND first <= ? AND last > ? ORDER BY first, last;

-- name: segment_longest
SELECT coalesce(max(last - first), 0) FROM segment WHERE key = ?;

-- name: segment_next_key
SELECT min(key) FROM segment WHERE key > ?;

-- name: segment_first_key
SELECT min(key) FROM segment;

-- name: metadata_put
INSERT OR REPLACE INTO metadata (key, body) VALUES (?, ?);

-- name: metadata
SELECT body FROM metadata WHERE key = ?;

-- name: inspect_integrity
PRAGMA integrity_check(20);

-- name: inspect_watermark
SELECT journal_id, version, (SELECT coalesce(max(version), 0) FROM user_conversation)
FROM watermark;

-- name: inspect_journal
SELECT id, body FROM journal ORDER BY id;

-- name: inspect_keys_conversation
SELECT key FROM conversation;

-- name: inspect_keys_message
SELECT DISTINCT key FROM message;

-- name: inspect_keys_idempotency
SELECT DISTINCT key FROM idempotency;

-- name: inspect_keys_member
SELECT DISTINCT key FROM member;

-- name: inspect_keys_user_conversation
SELECT DISTINCT key FROM user_conversation;

-- name: inspect_keys_endpoint_offset
SELECT DISTINCT key FROM endpoint_offset;

-- name: inspect_keys_segment
SELECT DISTINCT key FROM segment;

-- name: inspect_keys_metadata
SELECT key FROM metadata;

-- name: inspect_messages
SELECT seq, sender, client_message_id, kind, time_ms, refers_to, countable, entry_hash, digest,
    sealed
FROM message WHERE key = ? ORDER BY seq;

-- name: inspect_members
SELECT user, visible_from, digest_before, countable_before, left_at, left_digest,
    left_countable, marker, marker_countable, 0, mac
FROM member WHERE key = ? ORDER BY user;

-- name: inspect_known_ids
SELECT sender, client_message_id, seq FROM idempotency WHERE key = ?;

-- name: inspect_listings
SELECT key, user, id, version FROM user_conversation ORDER BY key;

-- name: inspect_offsets
SELECT key, user, endpoint, seq FROM endpoint_offset ORDER BY key;

-- name: inspect_segments
SELECT first, last, digest, sealed FROM segment WHERE key = ? ORDER BY first, last;
