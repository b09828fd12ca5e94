package shm

// Machine is what a system offers, as far as this package uses it. Sizes are in
// bytes; a limit of 0 is unknown, one of -1 is none.
type Machine struct {
	Kernel       string   `json:"kernel"`
	CPUs         int      `json:"cpus"`
	Membarrier   bool     `json:"membarrier"`
	Memfd        bool     `json:"memfd"`
	NoexecSeal   bool     `json:"noexecSeal"`
	Descriptors  Limit    `json:"descriptors"`
	Memlock      Limit    `json:"memlock"`
	Mappings     int64    `json:"mappings"` // vm.max_map_count
	MemTotal     int64    `json:"memTotal"`
	MemAvailable int64    `json:"memAvailable"`
	CgroupMemory int64    `json:"cgroupMemory"`
	ShmemHuge    string   `json:"shmemHuge"` // transparent huge pages for memfds
	RDMA         []string `json:"rdma,omitempty"`
}

// Limit is a resource limit: the one that holds, and what it may be raised to.
type Limit struct {
	Now  int64 `json:"now"`
	Most int64 `json:"most"`
}
