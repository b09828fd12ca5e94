package ring

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The C header has the same numbers.
func TestCHeader(t *testing.T) {
	b, err := os.ReadFile("../cgo/include/nova_ring.h")
	require.NoError(t, err)
	got := map[string]uint64{}
	for _, m := range regexp.MustCompile(`(?m)^#define NOVA_([A-Z_]+) (0x[0-9a-f]+|[0-9]+)(?:u|ull)?$`).FindAllStringSubmatch(string(b), -1) {
		n, err := strconv.ParseUint(m[2], 0, 64)
		require.NoError(t, err)
		got[m[1]] = n
	}
	want := map[string]uint64{
		"MAGIC": Magic, "VERSION": Version, "BYTE_ORDER": byteOrderMark, "PAGE": pageSize, "LINE_PAIR": linePair,
		"OFF_MAGIC": offMagic, "OFF_VERSION": offVersion, "OFF_BYTE_ORDER": offByteOrder, "OFF_SLOT_SIZE": offSlotSize,
		"OFF_SLOTS": offSlots, "OFF_FLAGS": offFlags, "OFF_PRODUCERS": offProducers, "OFF_FINGERPRINT": offFingerprint,
		"OFF_PAYLOAD": offPayload, "OFF_SLOTS_AT": offSlotsAt, "OFF_HEAD": offHead, "OFF_CONSUMER_ATTN": offConsumerAttn,
		"OFF_REASON": offReason, "OFF_TAIL": offTail, "OFF_END": offEnd, "OFF_PRODUCER_ATTN": offProducerAttn,
		"OFF_CONSUMER_WAKE": offConsumerWake, "OFF_PRODUCER_WAKE": offProducerWake, "OFF_ENDS": offEnds, "OFF_RECORDS": offRecords,
		"FLAG_WIDE": flagWide, "FLAG_MANY": flagMany,
		"REC_INTENT_POS": recIntentPos, "REC_INTENT_INFO": recIntentInfo, "REC_END": recEnd, "REC_JOIN": recJoin, "RECORD_SIZE": recordSize,
		"POS_BITS": posBits, "KIND_SHIFT": kindShift, "FLAG_SHIFT": flagShift, "TAG_SHIFT": tagShift,
		"LENGTH_BITS": lengthBits, "RECORD_SHIFT": recordShift, "PREV_SHIFT": prevShift, "GEN_SHIFT": genShift,
		"NARROW_HEADER": narrowHeader, "WIDE_HEADER": wideHeader, "ATTN_SEQ_SHIFT": attnSeqShift,
	}
	for name, n := range want {
		require.Contains(t, got, name)
		require.Equal(t, n, got[name], name)
	}
	require.Contains(t, string(b), "NOVA_ATTN_MODE 3ull")
	require.Equal(t, 3, attnMode)
	require.Equal(t, 1<<2, attnClosed)
	require.Equal(t, 1<<3, attnCancel)
	for k := Data; k <= Pad; k++ {
		name := regexp.MustCompile(`([a-z])([A-Z])`).ReplaceAllString(k.String(), "${1}_${2}")
		require.Contains(t, string(b), "NOVA_"+strings.ToUpper(name)+" = "+strconv.Itoa(int(k)))
	}
}
