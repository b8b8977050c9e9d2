// Package registrytest is a registry (OCI distribution specification 1.1,
// Docker Registry HTTP API V2) inside the test process, which misbehaves on
// request.
//
//	reg := registrytest.Start(t, registrytest.Options{})
//	reg.Inject(registrytest.Fault{Path: "/blobs/", Status: 503, Times: 2})
//	... pull reg.Host()+"/name:tag" ...
//	reg.Requests() // what was asked, with what credentials
//
// Everything is kept in memory. Manifests whose blobs are missing and uploads
// that do not have their digest are refused, as a real registry does.
package registrytest
