package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/define"
)

// resourceKeys are what --resource can limit; each has a flag of its own.
var resourceKeys = []string{"memory", "memory-swap", "cpu-shares", "cpu-period", "cpu-quota", "cpuset-cpus", "cpuset-mems"}

// addResource adds docker's word for the flags about limits.
func addResource(cmd *cobra.Command, values *[]string) {
	cmd.Flags().StringArrayVar(values, "resource", nil, "limit RUN steps, as `key=value[,key=value]`: the same as the flags --"+strings.Join(resourceKeys, ", --"))
}

// resource sets the limits that --resource names. A list of CPUs has commas of
// its own: what is no key goes on with the value before it.
func (c *confineFlags) resource(cmd *cobra.Command, values []string) error {
	for _, value := range values {
		var pairs []string
		for _, field := range strings.Split(value, ",") {
			if !strings.Contains(field, "=") && len(pairs) > 0 && strings.HasPrefix(pairs[len(pairs)-1], "cpuset-") {
				pairs[len(pairs)-1] += "," + field
				continue
			}
			pairs = append(pairs, field)
		}
		for _, p := range pairs {
			key, v, ok := strings.Cut(p, "=")
			if !ok || v == "" {
				return fmt.Errorf("--resource %q: want key=value: %w", value, define.ErrInvalid)
			}
			if f := cmd.Flags().Lookup(key); f != nil && f.Changed {
				return fmt.Errorf("--resource %s and --%s: want one or the other: %w", p, key, define.ErrInvalid)
			}
			if err := c.setResource(key, v); err != nil {
				return fmt.Errorf("--resource %q: %w", value, err)
			}
		}
	}
	return nil
}

func (c *confineFlags) setResource(key, v string) (err error) {
	switch key {
	case "memory":
		c.memory = v
	case "memory-swap":
		c.memorySwap = v
	case "cpu-shares":
		c.cpuShares, err = strconv.ParseUint(v, 10, 64)
	case "cpu-period":
		c.cpuPeriod, err = strconv.ParseUint(v, 10, 64)
	case "cpu-quota":
		c.cpuQuota, err = strconv.ParseInt(v, 10, 64)
	case "cpuset-cpus":
		c.cpusetCPUs = v
	case "cpuset-mems":
		c.cpusetMems = v
	default:
		return fmt.Errorf("%s: want one of %s%s: %w", key, strings.Join(resourceKeys, ", "), didYouMean(key, resourceKeys, ""), define.ErrInvalid)
	}
	if err != nil {
		return fmt.Errorf("%s=%s: want a number: %w", key, v, define.ErrInvalid)
	}
	return nil
}
