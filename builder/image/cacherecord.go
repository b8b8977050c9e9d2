package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stratabuild/strata/define"
)

// CacheRecordKey is the key of an image config, beside those of the OCI image
// specification, under which the image's CacheRecord stands. The
// specification asks implementations to ignore keys that they do not know.
const CacheRecordKey = "io.strata.cache"

// MaxCacheResults bounds a CacheRecord; what comes after is left out.
const MaxCacheResults = 1024

// cacheRecordVersion changes when the fields come to mean something else.
const cacheRecordVersion = 1

// CacheRecord says which steps of a build made the image's layers, so that
// another machine can use them in place of executing the steps. It belongs to
// one image: ParseConfig and Clone leave it out, and no image built on it has
// it.
type CacheRecord struct {
	Version int           `json:"version"`
	Results []CacheResult `json:"results"`
}

// CacheResult is the result of one step.
type CacheResult struct {
	// Key is the digest of the step's cache key, a SHA-256.
	Key digest.Digest `json:"key"`
	// Layers is how many of the image's layers, from the first, the root
	// consists of after the step.
	Layers int `json:"layers"`
	// Empty: the last of them is not the step's, which changed no file.
	Empty bool `json:"empty,omitempty"`
	// Created is when the step was executed.
	Created time.Time `json:"created"`
}

// NewCacheRecord returns a record of the results, each key once and at most
// MaxCacheResults; nil when there is none.
func NewCacheRecord(results []CacheResult) *CacheRecord {
	r := &CacheRecord{Version: cacheRecordVersion}
	seen := map[digest.Digest]bool{}
	for _, one := range results {
		if !seen[one.Key] && len(r.Results) < MaxCacheResults {
			seen[one.Key] = true
			one.Created = one.Created.UTC()
			r.Results = append(r.Results, one)
		}
	}
	if len(r.Results) == 0 {
		return nil
	}
	return r
}

// ParseCacheRecord reads the record of an image config with that number of
// layers; nil when the config has none. A record that is not exactly of the
// form that Encode writes, names a layer that the image does not have, or is
// larger than MaxCacheResults is define.ErrInvalid; one of a later version
// is define.ErrUnsupported.
func ParseCacheRecord(config []byte, layers int) (*CacheRecord, error) {
	if len(config) > MaxDocument {
		return nil, fmt.Errorf("config has %d bytes, more than %d: %w", len(config), MaxDocument, define.ErrInvalid)
	}
	if _, err := topLevelKeys(config); err != nil {
		return nil, fmt.Errorf("config: %v: %w", err, define.ErrInvalid)
	}
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(config, &doc); err != nil {
		return nil, fmt.Errorf("config: %v: %w", err, define.ErrInvalid)
	}
	raw, ok := doc[CacheRecordKey]
	if !ok {
		return nil, nil
	}
	var version struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(raw, &version); err == nil && version.Version > cacheRecordVersion {
		return nil, fmt.Errorf("cache record of version %d, and only %d is known: %w", version.Version, cacheRecordVersion, define.ErrUnsupported)
	}
	r := &CacheRecord{}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	err := dec.Decode(r)
	if err == nil {
		if _, end := dec.Token(); !errors.Is(end, io.EOF) {
			err = errors.New("there is text after it")
		}
	}
	if err == nil {
		err = r.check(layers)
	}
	if err != nil {
		return nil, fmt.Errorf("cache record: %v: %w", err, define.ErrInvalid)
	}
	return r, nil
}

func (r *CacheRecord) check(layers int) error {
	switch {
	case r.Version != cacheRecordVersion:
		return fmt.Errorf("its version is %d", r.Version)
	case len(r.Results) == 0:
		return errors.New("it is empty")
	case len(r.Results) > MaxCacheResults:
		return fmt.Errorf("it has %d results, more than %d", len(r.Results), MaxCacheResults)
	}
	seen := map[digest.Digest]bool{}
	for i, one := range r.Results {
		switch {
		case one.Key.Validate() != nil || one.Key.Algorithm() != digest.SHA256:
			return fmt.Errorf("the key of its result %d is no SHA-256", i+1)
		case seen[one.Key]:
			return fmt.Errorf("its result %d has the key of another", i+1)
		case one.Layers < 0 || one.Layers > layers || one.Layers == 0 && !one.Empty:
			return fmt.Errorf("its result %d has %d layers, and the image %d", i+1, one.Layers, layers)
		case one.Created.IsZero():
			return fmt.Errorf("its result %d has no time", i+1)
		}
		seen[one.Key] = true
	}
	return nil
}
