-- One row a commit: everything that is durable goes through here first.
-- `floor`: commits up to here stand in the tables, so their rows go with this very
-- statement; it costs neither a transaction nor a sync of its own.
CREATE TABLE IF NOT EXISTS journal (
    id INTEGER PRIMARY KEY,
    entries INTEGER NOT NULL,
    time_ms INTEGER NOT NULL,
    floor INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE TRIGGER IF NOT EXISTS journal_floor AFTER INSERT ON journal
WHEN NEW.floor > 0
BEGIN
    DELETE FROM journal WHERE id <= NEW.floor;
END;
