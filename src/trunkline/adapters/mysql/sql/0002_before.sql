-- Version 2: whoever reads a user's list looks first for what it was not told yet.
CREATE INDEX by_user ON outbox (user);
-- A member's row has a MAC. Workers of version 1 leave it as it is; rows are checked only once
-- `migrate --after` has given each its own.
ALTER TABLE member ADD COLUMN mac VARBINARY(16) NOT NULL DEFAULT '';
