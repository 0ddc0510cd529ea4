package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Minter makes the tokens that the application's backend would make (JWT, HS256).
type Minter struct {
	KeyID  string
	Secret []byte
}

// NewMinter takes the secret in base64url, with or without padding.
func NewMinter(keyID, secret string) (Minter, error) {
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(secret, "="))
	return Minter{keyID, raw}, err
}

// Mint returns a token of user that holds for an hour.
func (m Minter) Mint(user string) string {
	now := time.Now().Unix()
	signed := segment(map[string]any{"alg": "HS256", "typ": "JWT", "kid": m.KeyID}) + "." +
		segment(map[string]any{"sub": user, "iat": now, "exp": now + 3600})
	mac := hmac.New(sha256.New, m.Secret)
	mac.Write([]byte(signed))
	return signed + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func segment(claims map[string]any) string {
	text, err := json.Marshal(claims)
	if err != nil {
		panic(fmt.Sprintf("claims of strings and numbers: %v", err))
	}
	return base64.RawURLEncoding.EncodeToString(text)
}
