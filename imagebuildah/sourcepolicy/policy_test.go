package sourcepolicy

import (
	"strings"
	"testing"
)

func TestEvaluate(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ rules, source, attr, want, wantAttr string }{
		"no rule":               {`[]`, "docker-image://a", "", "docker-image://a", ""},
		"denied":                {`[{"action":"DENY","selector":{"identifier":"docker-image://*"}}]`, "docker-image://a", "", "", ""},
		"others are not":        {`[{"action":"DENY","selector":{"identifier":"docker-image://*"}}]`, "https://a", "", "https://a", ""},
		"the last rule decides": {`[{"action":"DENY","selector":{"identifier":"*"}},{"action":"ALLOW","selector":{"identifier":"https://good/*"}}]`, "https://good/x", "", "https://good/x", ""},
		"exact":                 {`[{"action":"DENY","selector":{"identifier":"docker-image://*","matchType":"EXACT"}}]`, "docker-image://a", "", "docker-image://a", ""},
		"regular expression":    {`[{"action":1,"selector":{"identifier":"a.+z","matchType":2}}]`, "docker-image://abz", "", "", ""},
		"wildcards are quoted":  {`[{"action":"DENY","selector":{"identifier":"docker-image://a.b"}}]`, "docker-image://axb", "", "docker-image://axb", ""},
		"converted": {`[{"action":"CONVERT","selector":{"identifier":"docker-image://docker.io/library/*:*"},"updates":{"identifier":"docker-image://mine/${1}:${2}-x"}}]`,
			"docker-image://docker.io/library/a:1", "", "docker-image://mine/a:1-x", ""},
		"converted, then denied": {`[{"action":"DENY","selector":{"identifier":"docker-image://b"}},{"action":"CONVERT","selector":{"identifier":"docker-image://a"},"updates":{"identifier":"docker-image://b"}}]`,
			"docker-image://a", "", "", ""},
		"without end": {`[{"action":"CONVERT","selector":{"identifier":"a*"},"updates":{"identifier":"ax${1}"}}]`, "a", "", "", ""},
		"growing":     {`[{"action":"CONVERT","selector":{"identifier":"a(.*)","matchType":"REGEX"},"updates":{"identifier":"a${1}y${1}y${1}y${1}y${1}y${1}y${1}"}}]`, "a", "", "", ""},
		"attributes":  {`[{"action":"CONVERT","selector":{"identifier":"https://*"},"updates":{"attrs":{"http.checksum":"sha256:x"}}}]`, "https://a", "", "https://a", "sha256:x"},
		"constraint":  {`[{"action":"DENY","selector":{"identifier":"https://*","constraints":[{"key":"http.checksum","value":"","condition":"EQUAL"}]}}]`, "https://a", "", "", ""},
		"constraint that does not fit": {`[{"action":"DENY","selector":{"identifier":"https://*","constraints":[{"key":"http.checksum","value":"^$","condition":"MATCHES"}]}}]`,
			"https://a", "sha256:y", "https://a", "sha256:y"},
		"not equal": {`[{"action":"DENY","selector":{"identifier":"https://*","constraints":[{"key":"http.checksum","value":"sha256:z","condition":"NOTEQUAL"}]}}]`, "https://a", "sha256:y", "", ""},
	} {
		p, err := Parse([]byte(`{"version":1,"rules":` + tc.rules + `}`))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		attrs := map[string]string{}
		if tc.attr != "" {
			attrs["http.checksum"] = tc.attr
		}
		got, err := p.Evaluate(Source{tc.source, attrs})
		if (err != nil) != (tc.want == "") || err == nil && (got.Identifier != tc.want || got.Attrs["http.checksum"] != tc.wantAttr) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: several lines: %v", name, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for _, text := range []string{``, `[]`, `{"rules":[{}]}`, `{"rules":[]} x`, `{"version":2}`, `{"rule":[]}`,
		`{"rules":[{"action":"FORBID","selector":{"identifier":"*"}}]}`, `{"rules":[{"action":7,"selector":{"identifier":"*"}}]}`,
		`{"rules":[{"action":"DENY","selector":{"identifier":"**"}}]}`, `{"rules":[{"action":"DENY","selector":{"identifier":"(","matchType":"REGEX"}}]}`,
		`{"rules":[{"action":"CONVERT","selector":{"identifier":"*"}}]}`, `{"rules":[{"selector":{"identifier":"*","constraints":[null]}}]}`,
		`{"rules":[{"selector":{"identifier":"*","constraints":[{"key":"a","value":"(","condition":"MATCHES"}]}}]}`} {
		if _, err := Parse([]byte(text)); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"rules":[{"action":"CONVERT","selector":{"identifier":"a*","matchType":"WILDCARD","constraints":[{"key":"a","condition":"MATCHES"}]},"updates":{"identifier":"b${1}"}}]}`), "abc")
	f.Fuzz(func(t *testing.T, data []byte, source string) {
		p, err := Parse(data)
		if err != nil {
			return
		}
		got, err := p.Evaluate(Source{Identifier: source})
		if err == nil && len(got.Identifier) > maxIdentifier && len(source) <= maxIdentifier {
			t.Errorf("%d bytes", len(got.Identifier))
		}
	})
}
