-- Version 2: whoever reads a user's list looks first for what it was not told yet.
CREATE INDEX by_user ON outbox (user);
