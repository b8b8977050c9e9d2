package store

import (
	"io"

	"github.com/opencontainers/go-digest"
	"go.podman.io/storage"
	drivers "go.podman.io/storage/drivers"
	"go.podman.io/storage/pkg/archive"
)

// The rest of storage.Store, which the library answers.

func (l *lateStore) GraphDriver() (drivers.Driver, error) {
	return ask(l, func(s storage.Store) (drivers.Driver, error) { return s.GraphDriver() })
}

func (l *lateStore) CreateLayer(id, parent string, names []string, mountLabel string, writeable bool, options *storage.LayerOptions) (*storage.Layer, error) {
	return ask(l, func(s storage.Store) (*storage.Layer, error) {
		return s.CreateLayer(id, parent, names, mountLabel, writeable, options)
	})
}

func (l *lateStore) PutLayer(id, parent string, names []string, mountLabel string, writeable bool, options *storage.LayerOptions, diff io.Reader) (a *storage.Layer, b int64, err error) {
	err = do(l, func(s storage.Store) error {
		a, b, err = s.PutLayer(id, parent, names, mountLabel, writeable, options, diff)
		return err
	})
	return a, b, err
}

func (l *lateStore) CreateImage(id string, names []string, layer, metadata string, options *storage.ImageOptions) (*storage.Image, error) {
	return ask(l, func(s storage.Store) (*storage.Image, error) {
		return s.CreateImage(id, names, layer, metadata, options)
	})
}

func (l *lateStore) CreateContainer(id string, names []string, image, layer, metadata string, options *storage.ContainerOptions) (*storage.Container, error) {
	return ask(l, func(s storage.Store) (*storage.Container, error) {
		return s.CreateContainer(id, names, image, layer, metadata, options)
	})
}

func (l *lateStore) Metadata(id string) (string, error) {
	return ask(l, func(s storage.Store) (string, error) { return s.Metadata(id) })
}

func (l *lateStore) SetMetadata(id, metadata string) error {
	return do(l, func(s storage.Store) error { return s.SetMetadata(id, metadata) })
}

func (l *lateStore) Status() ([][2]string, error) {
	return ask(l, func(s storage.Store) ([][2]string, error) { return s.Status() })
}

func (l *lateStore) Delete(id string) error {
	return do(l, func(s storage.Store) error { return s.Delete(id) })
}

func (l *lateStore) DeleteLayer(id string) error {
	return do(l, func(s storage.Store) error { return s.DeleteLayer(id) })
}

func (l *lateStore) DeleteImage(id string, commit bool) ([]string, error) {
	return ask(l, func(s storage.Store) ([]string, error) { return s.DeleteImage(id, commit) })
}

func (l *lateStore) DeleteContainer(id string) error {
	return do(l, func(s storage.Store) error { return s.DeleteContainer(id) })
}

func (l *lateStore) Wipe() error {
	return do(l, func(s storage.Store) error { return s.Wipe() })
}

func (l *lateStore) MountImage(id string, mountOptions []string, mountLabel string) (string, error) {
	return ask(l, func(s storage.Store) (string, error) { return s.MountImage(id, mountOptions, mountLabel) })
}

func (l *lateStore) UnmountImage(id string, force bool) (bool, error) {
	return ask(l, func(s storage.Store) (bool, error) { return s.UnmountImage(id, force) })
}

func (l *lateStore) Mount(id, mountLabel string) (string, error) {
	return ask(l, func(s storage.Store) (string, error) { return s.Mount(id, mountLabel) })
}

func (l *lateStore) Unmount(id string, force bool) (bool, error) {
	return ask(l, func(s storage.Store) (bool, error) { return s.Unmount(id, force) })
}

func (l *lateStore) Mounted(id string) (int, error) {
	return ask(l, func(s storage.Store) (int, error) { return s.Mounted(id) })
}

func (l *lateStore) Changes(from, to string) ([]archive.Change, error) {
	return ask(l, func(s storage.Store) ([]archive.Change, error) { return s.Changes(from, to) })
}

func (l *lateStore) DiffSize(from, to string) (int64, error) {
	return ask(l, func(s storage.Store) (int64, error) { return s.DiffSize(from, to) })
}

func (l *lateStore) Diff(from, to string, options *storage.DiffOptions) (io.ReadCloser, error) {
	return ask(l, func(s storage.Store) (io.ReadCloser, error) { return s.Diff(from, to, options) })
}

func (l *lateStore) ApplyDiff(to string, diff io.Reader) (int64, error) {
	return ask(l, func(s storage.Store) (int64, error) { return s.ApplyDiff(to, diff) })
}

func (l *lateStore) PrepareStagedLayer(options *drivers.ApplyDiffWithDifferOpts, differ drivers.Differ) (*drivers.DriverWithDifferOutput, error) {
	return ask(l, func(s storage.Store) (*drivers.DriverWithDifferOutput, error) {
		return s.PrepareStagedLayer(options, differ)
	})
}

func (l *lateStore) ApplyStagedLayer(args storage.ApplyStagedLayerOptions) (*storage.Layer, error) {
	return ask(l, func(s storage.Store) (*storage.Layer, error) { return s.ApplyStagedLayer(args) })
}

func (l *lateStore) CleanupStagedLayer(diffOutput *drivers.DriverWithDifferOutput) error {
	return do(l, func(s storage.Store) error { return s.CleanupStagedLayer(diffOutput) })
}

func (l *lateStore) DifferTarget(id string) (string, error) {
	return ask(l, func(s storage.Store) (string, error) { return s.DifferTarget(id) })
}

func (l *lateStore) LayersByCompressedDigest(d digest.Digest) ([]storage.Layer, error) {
	return ask(l, func(s storage.Store) ([]storage.Layer, error) { return s.LayersByCompressedDigest(d) })
}

func (l *lateStore) LayersByUncompressedDigest(d digest.Digest) ([]storage.Layer, error) {
	return ask(l, func(s storage.Store) ([]storage.Layer, error) { return s.LayersByUncompressedDigest(d) })
}

func (l *lateStore) LayersByTOCDigest(d digest.Digest) ([]storage.Layer, error) {
	return ask(l, func(s storage.Store) ([]storage.Layer, error) { return s.LayersByTOCDigest(d) })
}

func (l *lateStore) LayerSize(id string) (int64, error) {
	return ask(l, func(s storage.Store) (int64, error) { return s.LayerSize(id) })
}

func (l *lateStore) LayerParentOwners(id string) (a []int, b []int, err error) {
	err = do(l, func(s storage.Store) error { a, b, err = s.LayerParentOwners(id); return err })
	return a, b, err
}

func (l *lateStore) Layers() ([]storage.Layer, error) {
	return ask(l, func(s storage.Store) ([]storage.Layer, error) { return s.Layers() })
}

func (l *lateStore) Images() ([]storage.Image, error) {
	return ask(l, func(s storage.Store) ([]storage.Image, error) { return s.Images() })
}

func (l *lateStore) Containers() ([]storage.Container, error) {
	return ask(l, func(s storage.Store) ([]storage.Container, error) { return s.Containers() })
}

func (l *lateStore) Names(id string) ([]string, error) {
	return ask(l, func(s storage.Store) ([]string, error) { return s.Names(id) })
}

func (l *lateStore) SetNames(id string, names []string) error {
	return do(l, func(s storage.Store) error { return s.SetNames(id, names) })
}

func (l *lateStore) AddNames(id string, names []string) error {
	return do(l, func(s storage.Store) error { return s.AddNames(id, names) })
}

func (l *lateStore) RemoveNames(id string, names []string) error {
	return do(l, func(s storage.Store) error { return s.RemoveNames(id, names) })
}

func (l *lateStore) ListImageBigData(id string) ([]string, error) {
	return ask(l, func(s storage.Store) ([]string, error) { return s.ListImageBigData(id) })
}

func (l *lateStore) ImageBigDataSize(id, key string) (int64, error) {
	return ask(l, func(s storage.Store) (int64, error) { return s.ImageBigDataSize(id, key) })
}

func (l *lateStore) ImageBigDataDigest(id, key string) (digest.Digest, error) {
	return ask(l, func(s storage.Store) (digest.Digest, error) { return s.ImageBigDataDigest(id, key) })
}

func (l *lateStore) SetImageBigData(id, key string, data []byte, digestManifest func([]byte) (digest.Digest, error)) error {
	return do(l, func(s storage.Store) error { return s.SetImageBigData(id, key, data, digestManifest) })
}

func (l *lateStore) ImageDirectory(id string) (string, error) {
	return ask(l, func(s storage.Store) (string, error) { return s.ImageDirectory(id) })
}

func (l *lateStore) ImageRunDirectory(id string) (string, error) {
	return ask(l, func(s storage.Store) (string, error) { return s.ImageRunDirectory(id) })
}

func (l *lateStore) ListLayerBigData(id string) ([]string, error) {
	return ask(l, func(s storage.Store) ([]string, error) { return s.ListLayerBigData(id) })
}

func (l *lateStore) LayerBigData(id, key string) (io.ReadCloser, error) {
	return ask(l, func(s storage.Store) (io.ReadCloser, error) { return s.LayerBigData(id, key) })
}

func (l *lateStore) SetLayerBigData(id, key string, data io.Reader) error {
	return do(l, func(s storage.Store) error { return s.SetLayerBigData(id, key, data) })
}

func (l *lateStore) ImageSize(id string) (int64, error) {
	return ask(l, func(s storage.Store) (int64, error) { return s.ImageSize(id) })
}

func (l *lateStore) ListContainerBigData(id string) ([]string, error) {
	return ask(l, func(s storage.Store) ([]string, error) { return s.ListContainerBigData(id) })
}

func (l *lateStore) ContainerBigData(id, key string) ([]byte, error) {
	return ask(l, func(s storage.Store) ([]byte, error) { return s.ContainerBigData(id, key) })
}

func (l *lateStore) ContainerBigDataSize(id, key string) (int64, error) {
	return ask(l, func(s storage.Store) (int64, error) { return s.ContainerBigDataSize(id, key) })
}

func (l *lateStore) ContainerBigDataDigest(id, key string) (digest.Digest, error) {
	return ask(l, func(s storage.Store) (digest.Digest, error) { return s.ContainerBigDataDigest(id, key) })
}

func (l *lateStore) SetContainerBigData(id, key string, data []byte) error {
	return do(l, func(s storage.Store) error { return s.SetContainerBigData(id, key, data) })
}

func (l *lateStore) ContainerSize(id string) (int64, error) {
	return ask(l, func(s storage.Store) (int64, error) { return s.ContainerSize(id) })
}

func (l *lateStore) Layer(id string) (*storage.Layer, error) {
	return ask(l, func(s storage.Store) (*storage.Layer, error) { return s.Layer(id) })
}

func (l *lateStore) ImagesByTopLayer(id string) ([]*storage.Image, error) {
	return ask(l, func(s storage.Store) ([]*storage.Image, error) { return s.ImagesByTopLayer(id) })
}

func (l *lateStore) ImagesByDigest(d digest.Digest) ([]*storage.Image, error) {
	return ask(l, func(s storage.Store) ([]*storage.Image, error) { return s.ImagesByDigest(d) })
}

func (l *lateStore) Container(id string) (*storage.Container, error) {
	return ask(l, func(s storage.Store) (*storage.Container, error) { return s.Container(id) })
}

func (l *lateStore) ContainerByLayer(id string) (*storage.Container, error) {
	return ask(l, func(s storage.Store) (*storage.Container, error) { return s.ContainerByLayer(id) })
}

func (l *lateStore) ContainerDirectory(id string) (string, error) {
	return ask(l, func(s storage.Store) (string, error) { return s.ContainerDirectory(id) })
}

func (l *lateStore) SetContainerDirectoryFile(id, file string, data []byte) error {
	return do(l, func(s storage.Store) error { return s.SetContainerDirectoryFile(id, file, data) })
}

func (l *lateStore) FromContainerDirectory(id, file string) ([]byte, error) {
	return ask(l, func(s storage.Store) ([]byte, error) { return s.FromContainerDirectory(id, file) })
}

func (l *lateStore) ContainerRunDirectory(id string) (string, error) {
	return ask(l, func(s storage.Store) (string, error) { return s.ContainerRunDirectory(id) })
}

func (l *lateStore) SetContainerRunDirectoryFile(id, file string, data []byte) error {
	return do(l, func(s storage.Store) error { return s.SetContainerRunDirectoryFile(id, file, data) })
}

func (l *lateStore) FromContainerRunDirectory(id, file string) ([]byte, error) {
	return ask(l, func(s storage.Store) ([]byte, error) { return s.FromContainerRunDirectory(id, file) })
}

func (l *lateStore) ContainerParentOwners(id string) (a []int, b []int, err error) {
	err = do(l, func(s storage.Store) error { a, b, err = s.ContainerParentOwners(id); return err })
	return a, b, err
}

func (l *lateStore) Lookup(name string) (string, error) {
	return ask(l, func(s storage.Store) (string, error) { return s.Lookup(name) })
}

func (l *lateStore) Shutdown(force bool) ([]string, error) {
	return ask(l, func(s storage.Store) ([]string, error) { return s.Shutdown(force) })
}

func (l *lateStore) Version() ([][2]string, error) {
	return ask(l, func(s storage.Store) ([][2]string, error) { return s.Version() })
}

func (l *lateStore) GetDigestLock(v digest.Digest) (storage.Locker, error) {
	return ask(l, func(s storage.Store) (storage.Locker, error) { return s.GetDigestLock(v) })
}

func (l *lateStore) LookupAdditionalLayer(tocDigest digest.Digest, imageref string) (storage.AdditionalLayer, error) {
	return ask(l, func(s storage.Store) (storage.AdditionalLayer, error) {
		return s.LookupAdditionalLayer(tocDigest, imageref)
	})
}

func (l *lateStore) GarbageCollect() error {
	return do(l, func(s storage.Store) error { return s.GarbageCollect() })
}

func (l *lateStore) Check(options *storage.CheckOptions) (storage.CheckReport, error) {
	return ask(l, func(s storage.Store) (storage.CheckReport, error) { return s.Check(options) })
}

func (l *lateStore) MultiList(v storage.MultiListOptions) (storage.MultiListResult, error) {
	return ask(l, func(s storage.Store) (storage.MultiListResult, error) { return s.MultiList(v) })
}

func (l *lateStore) Dedup(v storage.DedupArgs) (drivers.DedupResult, error) {
	return ask(l, func(s storage.Store) (drivers.DedupResult, error) { return s.Dedup(v) })
}
