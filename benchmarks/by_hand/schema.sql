-- What one would begin with: a balance, holds, and double entries.
CREATE TABLE wallets (
    wallet_id bigint PRIMARY KEY,
    balance_micros bigint NOT NULL,
    held_micros bigint NOT NULL DEFAULT 0,
    CHECK (held_micros BETWEEN 0 AND balance_micros)
);

CREATE TABLE holds (
    hold_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    wallet_id bigint NOT NULL REFERENCES wallets,
    idem_key text NOT NULL UNIQUE,
    amount_micros bigint NOT NULL,
    charged_micros bigint,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE entries (
    entry_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    hold_id bigint NOT NULL REFERENCES holds,
    account text NOT NULL,
    amount_micros bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

INSERT INTO wallets (wallet_id, balance_micros) SELECT n, 1000000000000 FROM generate_series(1, 1000) AS n;
