package buildcontext

import "errors"

// FolderOptions says how a folder is read that holds no build file.
type FolderOptions struct {
	// IgnoreFile is read in place of the folder's own .containerignore or
	// .dockerignore: a name in the working folder, else in the folder.
	IgnoreFile string
	// All leaves nothing out; the folder's own ignore file does not count.
	All bool
}

// OpenFolder opens a folder as a source of files only: what copy and add take
// their sources from, or a further context of a build. Errors are those of
// Open.
func OpenFolder(dir string, o FolderOptions) (*Context, error) {
	c := &Context{}
	err := c.openFolder(dir)
	if err == nil && (o.IgnoreFile != "" || !o.All) {
		err = c.readIgnore(&Options{IgnoreFile: o.IgnoreFile})
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}
