package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/novastream/novastream/internal/rdmacheck"
	"github.com/novastream/novastream/rdma"
	_ "github.com/novastream/novastream/rdma/soft" // registers the provider
	"github.com/novastream/novastream/rdma/verbs"
	"github.com/novastream/novastream/shm"
)

// doctorRDMA tells what both providers offer on this machine, and tries it.
func doctorRDMA(ctx context.Context, c *cli, m shm.Machine) error {
	found := []finding{
		yes(len(m.RDMA) > 0, "kernel", "devices "+strings.Join(m.RDMA, ", "), "missing", "knows no RDMA device",
			"load the card's driver; soft-RoCE: modprobe rdma_rxe, rdma link add rxe0 type rxe netdev eth0"),
		memlock(m),
	}
	devices := []rdmacheck.Device{}
	soft, err := rdma.Lookup("soft")
	if err != nil {
		return fmt.Errorf("this build has lost a provider: %w", err)
	}
	for _, p := range []rdma.Provider{verbs.Provider(), soft} {
		d, f := rdmacheck.Examine(ctx, p)
		devices, found = append(devices, d...), append(found, f...)
	}
	if c.JSON {
		return json.NewEncoder(os.Stdout).Encode(struct {
			Memlock  shm.Limit          `json:"memlock"`
			Devices  []rdmacheck.Device `json:"devices"`
			Findings []finding          `json:"findings"`
		}{m.Memlock, devices, found})
	}
	return printFindings(found)
}
