package registrytest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Manifest is a manifest as it was put.
type Manifest struct {
	MediaType string
	Data      []byte
}

type repo struct {
	blobs     map[digest.Digest][]byte
	manifests map[digest.Digest]Manifest
	tags      map[string]digest.Digest
}

type upload struct {
	repo string
	data []byte
}

// repo returns a repository, which is made by its first use.
func (r *Registry) repo(name string) *repo {
	p := r.repos[name]
	if p == nil {
		p = &repo{blobs: map[digest.Digest][]byte{}, manifests: map[digest.Digest]Manifest{}, tags: map[string]digest.Digest{}}
		r.repos[name] = p
	}
	return p
}

// PutBlob puts a blob into a repository.
func (r *Registry) PutBlob(repo string, data []byte) digest.Digest {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := digest.FromBytes(data)
	r.repo(repo).blobs[d] = data
	return d
}

// PutManifest puts a manifest, unchecked, under its digest and, when not "",
// a tag.
func (r *Registry) PutManifest(repo, tag string, m Manifest) digest.Digest {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := digest.FromBytes(m.Data)
	r.repo(repo).manifests[d] = m
	if tag != "" {
		r.repo(repo).tags[tag] = d
	}
	return d
}

// Manifest returns what a tag or digest of a repository means.
func (r *Registry) Manifest(repo, reference string) (Manifest, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, m, ok := r.lookup(repo, reference)
	return m, ok
}

// Blob returns a blob of a repository.
func (r *Registry) Blob(repo string, d digest.Digest) ([]byte, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	data, ok := r.repo(repo).blobs[d]
	return data, ok
}

// Tags returns the tags of a repository, sorted.
func (r *Registry) Tags(repo string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var tags []string
	for t := range r.repo(repo).tags {
		tags = append(tags, t)
	}
	slices.Sort(tags)
	return tags
}

func (r *Registry) lookup(repo, reference string) (digest.Digest, Manifest, bool) {
	p := r.repo(repo)
	d, ok := p.tags[reference]
	if !ok {
		d = digest.Digest(reference)
	}
	m, ok := p.manifests[d]
	return d, m, ok
}

func (r *Registry) manifest(w http.ResponseWriter, q *http.Request, repo, reference string) {
	switch q.Method {
	case http.MethodGet, http.MethodHead:
		r.mu.Lock()
		d, m, ok := r.lookup(repo, reference)
		r.mu.Unlock()
		if !ok {
			refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown")
			return
		}
		w.Header().Set("Content-Type", m.MediaType)
		w.Header().Set("Docker-Content-Digest", d.String())
		http.ServeContent(w, q, "", time.Time{}, bytes.NewReader(m.Data))
	case http.MethodPut:
		r.putManifest(w, q, repo, reference)
	case http.MethodDelete:
		r.mu.Lock()
		d, _, ok := r.lookup(repo, reference)
		if ok && d.String() == reference {
			delete(r.repo(repo).manifests, d)
		}
		delete(r.repo(repo).tags, reference)
		r.mu.Unlock()
		if !ok {
			refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown")
			return
		}
		w.WriteHeader(http.StatusAccepted)
	default:
		refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED", q.Method)
	}
}

func (r *Registry) putManifest(w http.ResponseWriter, q *http.Request, repo, reference string) {
	data, err := io.ReadAll(io.LimitReader(q.Body, 4<<20))
	if err != nil {
		return
	}
	d := digest.FromBytes(data)
	if asked, err := digest.Parse(reference); err == nil && asked != d {
		refuse(w, http.StatusBadRequest, "DIGEST_INVALID", fmt.Sprintf("got %s", d))
		return
	}
	var m struct {
		Config    *v1.Descriptor  `json:"config"`
		Layers    []v1.Descriptor `json:"layers"`
		Manifests []v1.Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(data, &m); err != nil {
		refuse(w, http.StatusBadRequest, "MANIFEST_INVALID", err.Error())
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.repo(repo)
	blobs := m.Layers
	if m.Config != nil {
		blobs = append(blobs, *m.Config)
	}
	for _, b := range blobs {
		if data, ok := p.blobs[b.Digest]; !ok || int64(len(data)) != b.Size {
			refuse(w, http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN", fmt.Sprintf("blob unknown: %s of %d bytes", b.Digest, b.Size))
			return
		}
	}
	for _, i := range m.Manifests {
		if _, ok := p.manifests[i.Digest]; !ok {
			refuse(w, http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN", "manifest unknown: "+i.Digest.String())
			return
		}
	}
	p.manifests[d] = Manifest{MediaType: q.Header.Get("Content-Type"), Data: data}
	if reference != d.String() {
		p.tags[reference] = d
	}
	w.Header().Set("Docker-Content-Digest", d.String())
	w.Header().Set("Location", "/v2/"+repo+"/manifests/"+d.String())
	w.WriteHeader(http.StatusCreated)
}

func (r *Registry) blob(w http.ResponseWriter, q *http.Request, repo, reference string) {
	data, ok := r.Blob(repo, digest.Digest(reference))
	if !ok {
		refuse(w, http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown to registry")
		return
	}
	switch q.Method {
	case http.MethodGet, http.MethodHead:
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Docker-Content-Digest", reference)
		w.Header().Set("ETag", `"`+reference+`"`)
		http.ServeContent(w, q, "", time.Time{}, bytes.NewReader(data))
	case http.MethodDelete:
		r.mu.Lock()
		delete(r.repo(repo).blobs, digest.Digest(reference))
		r.mu.Unlock()
		w.WriteHeader(http.StatusAccepted)
	default:
		refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED", q.Method)
	}
}

func (r *Registry) tags(w http.ResponseWriter, q *http.Request, repo string) {
	tags := r.Tags(repo)
	if len(tags) == 0 {
		refuse(w, http.StatusNotFound, "NAME_UNKNOWN", "repository name not known to registry")
		return
	}
	if last := q.URL.Query().Get("last"); last != "" {
		i, found := slices.BinarySearch(tags, last)
		if found {
			i++
		}
		tags = tags[i:]
	}
	if n, err := strconv.Atoi(q.URL.Query().Get("n")); err == nil && n > 0 && n < len(tags) {
		tags = tags[:n]
		w.Header().Set("Link", fmt.Sprintf(`</v2/%s/tags/list?n=%d&last=%s>; rel="next"`, repo, n, tags[n-1]))
	}
	answer(w, http.StatusOK, map[string]any{"name": repo, "tags": tags})
}

func (r *Registry) catalog(w http.ResponseWriter) {
	r.mu.Lock()
	var names []string
	for n := range r.repos {
		names = append(names, n)
	}
	r.mu.Unlock()
	slices.Sort(names)
	answer(w, http.StatusOK, map[string]any{"repositories": names})
}

// referrers lists the manifests that have a subject.
func (r *Registry) referrers(w http.ResponseWriter, repo, subject string) {
	index := v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{}}
	index.SchemaVersion = 2
	r.mu.Lock()
	for d, m := range r.repo(repo).manifests {
		var have v1.Manifest
		if json.Unmarshal(m.Data, &have) == nil && have.Subject != nil && have.Subject.Digest.String() == subject {
			index.Manifests = append(index.Manifests, v1.Descriptor{
				MediaType: m.MediaType, Digest: d, Size: int64(len(m.Data)),
				ArtifactType: have.ArtifactType, Annotations: have.Annotations,
			})
		}
	}
	r.mu.Unlock()
	w.Header().Set("Content-Type", v1.MediaTypeImageIndex)
	json.NewEncoder(w).Encode(index) //nolint:errcheck // the client has gone
}
