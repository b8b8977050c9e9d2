package registrytest

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// authorized lets a request through or answers 401 with the challenge.
func (r *Registry) authorized(w http.ResponseWriter, q *http.Request) bool {
	if r.o.Username == "" {
		return true
	}
	if !r.o.Bearer {
		user, password, ok := q.BasicAuth()
		if ok && user == r.o.Username && password == r.o.Password {
			return true
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="test registry"`)
		refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
		return false
	}
	token, ok := strings.CutPrefix(q.Header.Get("Authorization"), "Bearer ")
	r.mu.Lock()
	until, known := r.tokens[token]
	r.mu.Unlock()
	if ok && known && time.Now().Before(until) {
		return true
	}
	realm := r.o.Realm
	if realm == "" {
		realm = r.URL() + "/token"
	}
	w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="test registry"`, realm))
	refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
	return false
}

// token is the token server (distribution, "Token Authentication
// Specification").
func (r *Registry) token(w http.ResponseWriter, q *http.Request) {
	user, password, _ := q.BasicAuth()
	if q.Method == http.MethodPost {
		user, password = q.PostFormValue("username"), q.PostFormValue("password")
	}
	if user != r.o.Username || password != r.o.Password {
		w.Header().Set("WWW-Authenticate", `Basic realm="test registry"`)
		refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "incorrect username or password")
		return
	}
	ttl := r.o.TokenTTL
	if ttl == 0 {
		ttl = 5 * time.Minute
	}
	token := rand.Text()
	r.mu.Lock()
	r.tokens[token] = time.Now().Add(ttl)
	r.mu.Unlock()
	answer(w, http.StatusOK, map[string]any{
		"token": token, "access_token": token, "expires_in": int(ttl.Seconds()), "issued_at": time.Now().UTC().Format(time.RFC3339),
	})
}
