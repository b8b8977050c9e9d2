package imagebuildah

import (
	"strings"
	"testing"
)

func TestMergeSBOMs(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ how, want, fail string }{
		{MergeCat, `{"bomFormat":"CycloneDX","components":[{"name":"a","version":"1"},{"name":"a","version":"2"}]}{"components":[{"name":"a","version":"1","x":1},{"name":"b"}]}`, ""},
		{MergeCycloneDX, `{"bomFormat":"CycloneDX","components":[{"name":"a","version":"1"},{"name":"a","version":"2"},{"name":"b"}]}`, ""},
	} {
		got, err := sbomMerges[test.how]([][]byte{
			[]byte(`{"bomFormat":"CycloneDX","components":[{"name":"a","version":"1"},{"name":"a","version":"2"}]}`),
			[]byte(`{"components":[{"name":"a","version":"1","x":1},{"name":"b"}]}`),
		})
		if err != nil || string(got) != test.want {
			t.Errorf("%s: %s, %v", test.how, got, err)
		}
	}
	got, err := sbomMerges[MergeSPDX]([][]byte{[]byte(`{"packages":[]}`), []byte(`{"packages":[{"name":"p","versionInfo":"1"},{"name":"p","versionInfo":"2"}]}`),
		[]byte(`{"packages":[{"name":"p","versionInfo":"2"}]}`), []byte(`{}`)})
	if want := `{"packages":[{"name":"p","versionInfo":"1"},{"name":"p","versionInfo":"2"}]}`; err != nil || string(got) != want {
		t.Errorf("SPDX: %s, %v", got, err)
	}
	for _, bad := range []string{"", "null", "[]", `{"components":3}`, `{"components":[3]}`, "{} {}"} {
		if got, err := sbomMerges[MergeCycloneDX]([][]byte{[]byte("{}"), []byte(bad)}); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %s, %v", bad, got, err)
		}
	}
}

func TestPURLFile(t *testing.T) {
	t.Parallel()
	got, err := purlFile([][]byte{
		[]byte(`{"components":[{"purl":"pkg:b"},{"name":"x","components":[{"purl":"pkg:a"}]},{"purl":"pkg:b"}]}` + "\n{}"),
		[]byte(`{"packages":[{"externalRefs":[{"referenceType":"purl","referenceLocator":"pkg:c"},{"referenceType":"cpe","referenceLocator":"no"}]}]}`),
	})
	want := `{"image_contents":{"dependencies":[{"purl":"pkg:a"},{"purl":"pkg:b"},{"purl":"pkg:c"}]}}` + "\n"
	if err != nil || string(got) != want {
		t.Errorf("%s, %v", got, err)
	}
	if _, err := purlFile([][]byte{[]byte("text")}); err == nil {
		t.Error("text is accepted")
	}
}
