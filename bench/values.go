package bench

// Values of the sizes that fit slots of 16, 32 and 64 bytes.
type (
	v8  struct{ A uint64 }
	v24 struct{ A, B, C uint64 }
	v56 struct{ A, B, C, D, E, F, G uint64 }
)
