package registrytest

import (
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/opencontainers/go-digest"
)

// upload serves the blob upload of the distribution specification, "Pushing
// blobs": in one request, in chunks, or by mounting.
func (r *Registry) upload(w http.ResponseWriter, q *http.Request, name, id string) {
	if q.Method == http.MethodPost {
		r.startUpload(w, q, name)
		return
	}
	r.mu.Lock()
	u := r.uploads[id]
	r.mu.Unlock()
	if u == nil || u.repo != name {
		refuse(w, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
		return
	}
	switch q.Method {
	case http.MethodGet:
		r.accepted(w, name, id, len(u.data), http.StatusNoContent)
	case http.MethodDelete:
		r.mu.Lock()
		delete(r.uploads, id)
		r.mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
	case http.MethodPatch, http.MethodPut:
		if !r.receive(w, q, u, name, id) {
			return
		}
		if q.Method == http.MethodPatch {
			r.accepted(w, name, id, len(u.data), http.StatusAccepted)
			return
		}
		r.finish(w, q, u, id)
	default:
		refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED", q.Method)
	}
}

func (r *Registry) startUpload(w http.ResponseWriter, q *http.Request, name string) {
	query := q.URL.Query()
	r.mu.Lock()
	r.serial++
	id := strconv.Itoa(r.serial)
	u := &upload{repo: name}
	if mount := digest.Digest(query.Get("mount")); mount != "" && !r.o.NoMount {
		if data, ok := r.repo(query.Get("from")).blobs[mount]; ok {
			r.repo(name).blobs[mount] = data
			r.mu.Unlock()
			created(w, name, mount)
			return
		}
	}
	r.uploads[id] = u
	r.mu.Unlock()
	if query.Get("digest") != "" {
		if r.receive(w, q, u, name, id) {
			r.finish(w, q, u, id)
		}
		return
	}
	r.accepted(w, name, id, 0, http.StatusAccepted)
}

// receive appends the body, which must begin where the upload stands.
func (r *Registry) receive(w http.ResponseWriter, q *http.Request, u *upload, name, id string) bool {
	data, err := io.ReadAll(q.Body)
	if err != nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if from := q.Header.Get("Content-Range"); from != "" {
		var start, end int
		if n, _ := fmt.Sscanf(from, "%d-%d", &start, &end); n != 2 || start != len(u.data) || end-start+1 != len(data) {
			w.Header().Set("Range", fmt.Sprintf("0-%d", max(0, len(u.data)-1)))
			w.Header().Set("Location", "/v2/"+name+"/blobs/uploads/"+id)
			refuse(w, http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID", from)
			return false
		}
	}
	u.data = append(u.data, data...)
	return true
}

func (r *Registry) finish(w http.ResponseWriter, q *http.Request, u *upload, id string) {
	want := digest.Digest(q.URL.Query().Get("digest"))
	r.mu.Lock()
	delete(r.uploads, id)
	ok := want.Validate() == nil && want.Algorithm().FromBytes(u.data) == want
	if ok {
		r.repo(u.repo).blobs[want] = u.data
	}
	r.mu.Unlock()
	if !ok {
		refuse(w, http.StatusBadRequest, "DIGEST_INVALID", "provided digest did not match uploaded content")
		return
	}
	created(w, u.repo, want)
}

func created(w http.ResponseWriter, name string, d digest.Digest) {
	w.Header().Set("Docker-Content-Digest", d.String())
	w.Header().Set("Location", "/v2/"+name+"/blobs/"+d.String())
	w.WriteHeader(http.StatusCreated)
}

func (r *Registry) accepted(w http.ResponseWriter, name, id string, have, code int) {
	w.Header().Set("Location", "/v2/"+name+"/blobs/uploads/"+id)
	w.Header().Set("Docker-Upload-UUID", id)
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(0, have-1)))
	w.WriteHeader(code)
}
