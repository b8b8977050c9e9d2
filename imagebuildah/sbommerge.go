package imagebuildah

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/stratabuild/strata/define"
)

// How several documents become one, by the names that buildah gave these ways.
const (
	// MergeCat puts one document behind the other.
	MergeCat = "cat"
	// MergeCycloneDX adds to the first document the "components" of the
	// others whose "name" and "version" it does not have together.
	MergeCycloneDX = "merge-cyclonedx-by-component-name-and-version"
	// MergeSPDX does so with "packages", by "name" and "versionInfo".
	MergeSPDX = "merge-spdx-by-package-name-and-versioninfo"
)

// SBOMMergeStrategies are the values of SBOM.Merge.
var SBOMMergeStrategies = []string{MergeCat, MergeCycloneDX, MergeSPDX}

var sbomMerges = map[string]func([][]byte) ([]byte, error){
	MergeCat:       func(d [][]byte) ([]byte, error) { return bytes.Join(d, nil), nil },
	MergeCycloneDX: func(d [][]byte) ([]byte, error) { return mergeLists(d, "components", "name", "version") },
	MergeSPDX:      func(d [][]byte) ([]byte, error) { return mergeLists(d, "packages", "name", "versionInfo") },
}

// mergeLists adds the list of each further document to that of the first. An
// entry is left out when one with the same values of keys is there already.
func mergeLists(documents [][]byte, list string, keys ...string) ([]byte, error) {
	var first map[string]json.RawMessage
	var all []json.RawMessage
	seen := map[string]bool{}
	for n, data := range documents {
		var doc map[string]json.RawMessage
		if err := json.Unmarshal(data, &doc); err != nil || doc == nil {
			return nil, fmt.Errorf("output %d of the scanner is not one JSON object, whose %s could be merged: %w", n+1, list, define.ErrInvalid)
		}
		var entries []json.RawMessage
		if raw := doc[list]; raw != nil {
			if err := json.Unmarshal(raw, &entries); err != nil {
				return nil, fmt.Errorf("output %d of the scanner: %s: want a list: %w", n+1, list, define.ErrInvalid)
			}
		}
		if n == 0 {
			first = doc
		}
		for _, e := range entries {
			id, err := entryID(e, keys)
			if err != nil {
				return nil, fmt.Errorf("output %d of the scanner: %s: %w", n+1, list, err)
			}
			if seen[id] && n > 0 {
				continue
			}
			seen[id] = true
			all = append(all, e)
		}
	}
	if all != nil {
		raw, err := json.Marshal(all)
		if err != nil {
			return nil, err
		}
		first[list] = raw
	}
	return json.Marshal(first)
}

// entryID is the values of keys in an object, so that no two lists of values
// give the same.
func entryID(entry json.RawMessage, keys []string) (string, error) {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(entry, &object); err != nil {
		return "", fmt.Errorf("an entry is no object: %w", define.ErrInvalid)
	}
	values := make([]string, len(keys))
	for i, k := range keys {
		if raw := object[k]; raw != nil && json.Unmarshal(raw, &values[i]) != nil {
			values[i] = string(raw)
		}
	}
	id, err := json.Marshal(values)
	return string(id), err
}

// purlDocument is the file of package URLs, as buildah writes it.
type purlDocument struct {
	ImageContents struct {
		Dependencies []purlEntry `json:"dependencies"`
	} `json:"image_contents"`
}

type purlEntry struct {
	PURL string `json:"purl"`
}

// bill is what is read of a CycloneDX or an SPDX document.
type bill struct {
	Components []component `json:"components"`
	Packages   []struct {
		ExternalRefs []struct {
			Type    string `json:"referenceType"`
			Locator string `json:"referenceLocator"`
		} `json:"externalRefs"`
	} `json:"packages"`
}

type component struct {
	PURL       string      `json:"purl"`
	Components []component `json:"components"`
}

func (c *component) urls(add func(string)) {
	add(c.PURL)
	for i := range c.Components {
		c.Components[i].urls(add)
	}
}

// purlFile lists the package URLs of CycloneDX and SPDX documents, sorted and
// each once. A scanner's output may hold several documents.
func purlFile(outputs [][]byte) ([]byte, error) {
	var urls []string
	add := func(u string) {
		if u != "" {
			urls = append(urls, u)
		}
	}
	for n, out := range outputs {
		dec := json.NewDecoder(bytes.NewReader(out))
		for {
			var b bill
			err := dec.Decode(&b)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("output %d of the scanner: no package URLs can be read from it, want CycloneDX or SPDX as JSON (%w): %w", n+1, err, define.ErrInvalid)
			}
			for i := range b.Components {
				b.Components[i].urls(add)
			}
			for _, p := range b.Packages {
				for _, r := range p.ExternalRefs {
					if r.Type == "purl" {
						add(r.Locator)
					}
				}
			}
		}
	}
	slices.Sort(urls)
	doc := purlDocument{}
	doc.ImageContents.Dependencies = []purlEntry{}
	for _, u := range slices.Compact(urls) {
		doc.ImageContents.Dependencies = append(doc.ImageContents.Dependencies, purlEntry{u})
	}
	data, err := json.Marshal(doc)
	return append(data, '\n'), err
}
