-- Version 2: whoever reads a user's list looks first for what it was not told yet.
CREATE INDEX by_user ON outbox (user);
-- A member's row has a MAC, which `migrate --after` gives to each that has none.
ALTER TABLE member ADD COLUMN mac VARBINARY(16) NOT NULL DEFAULT '';
