package torture

import (
	"time"

	"github.com/novastream/novastream"
)

// The words of a sender's record, one a round.
const (
	sAttempted = iota // frames that it has begun to send
	sCommitted        // frames that a call has returned nil for
	sBytes            // of those
	sID               // the SenderID it was given, set when Attach has answered
	sEnd              // the End that it has begun
	sEnded            // 1: the call that ended it has returned nil
	sError            // a verdict: why it could not go on
	sErrorAt          // when that was
	sLost             // slots that the error says may be lost, plus one
	sFloor            // frames committed before a fault that must not lose them, plus one
	sDone             // 1: the round is over, and nothing more is written
	sAttachAt         // when Attach answered
	sFramed           // bytes of the frames of bytes as the lane carries them, headers included
	sBatches          // and the rest: what the library has counted, once the round has ended
	sFrames
	sPayload
	sWire
)

// The words of a session's record.
const (
	rStream      = iota // index of its stream, plus one
	rID                 // SenderID
	rSender             // index of the sender's record, plus one; 0 while no frame has come
	rGot                // frames, each one once
	rBytes              // of those
	rTorn               // frames that are not what they were made
	rDoubled            // frames that came again
	rMissing            // frames that others overtook, and that have not come
	rReordered          // frames that came later than their place
	rForeign            // frames of another session
	rMisnumbered        // frames whose Seq is not their place
	rKind               // of the frame that ended it
	rEndAt              // when
	rExits              // how many such frames
	rFirstAt            // when the first frame came, Attached or another
	rCounted            // how many the library says came, at its end
)

// The words of a stream's record.
const (
	tEOF      = iota // 1: read to its end
	tKind            // of the frame that ended the stream and no sender
	tActed           // the Act that was begun
	tError           // a verdict: what kept it from being read to its end
	tUnknown         // frames of senders that had not attached, or had ended
	tOverflow        // sessions for which there was no record
	tAttached        // sessions
	tAfterEnd        // frames after the end
	tStopped         // 1: the torturer has stopped the stream, when all senders had ended
)

func now() uint64 { return uint64(time.Now().UnixNano()) }

// books are what the records of an episode say, copied when it is over.
type books struct {
	senders  map[int]senderBook
	sessions []sessionBook
	streams  []streamBook
}

type senderBook struct {
	Attempted, Committed, Bytes uint64
	ID                          uint64
	End                         End
	Ended                       bool
	Error                       verdict
	ErrorAt                     uint64
	Lost                        uint64
	Told                        bool // that Lost may be lost
	Floor                       uint64
	Done                        bool
	Framed                      uint64
	Counted                     novastream.SenderStats
	Text                        string
}

type sessionBook struct {
	Stream, Sender                                                      int // Sender is -1 while unknown
	ID, Got, Bytes, Torn, Doubled, Missing, Reordered, Foreign, Numbers uint64
	Kind                                                                uint64
	EndAt, Exits, FirstAt, Counted                                      uint64
	Text                                                                string
}

type streamBook struct {
	EOF, Stopped                          bool
	Kind, Unknown, Overflow, After, Count uint64
	Acted                                 Act
	Error                                 verdict
	Text                                  string
}

// readBooks copies what a region says of an episode.
func readBooks(r region, p *Plan) books {
	b := books{senders: map[int]senderBook{}}
	for i, s := range p.Streams {
		t := r.stream(i)
		b.streams = append(b.streams, streamBook{
			EOF: t.get(tEOF) != 0, Stopped: t.get(tStopped) != 0, Kind: t.get(tKind), Unknown: t.get(tUnknown), Overflow: t.get(tOverflow),
			After: t.get(tAfterEnd), Count: t.get(tAttached), Acted: Act(t.get(tActed)), Error: verdict(t.get(tError)), Text: t.text(),
		})
		for _, x := range s.Senders {
			for k := range x.Rounds {
				b.senders[x.Record+k] = readSender(r.sender(x.Record + k))
			}
		}
	}
	for i := range maxSessions {
		x := r.session(i)
		if x.get(rStream) == 0 {
			continue
		}
		b.sessions = append(b.sessions, sessionBook{
			Stream: int(x.get(rStream)) - 1, Sender: int(x.get(rSender)) - 1, ID: x.get(rID), Got: x.get(rGot), Bytes: x.get(rBytes),
			Torn: x.get(rTorn), Doubled: x.get(rDoubled), Missing: x.get(rMissing), Reordered: x.get(rReordered),
			Foreign: x.get(rForeign), Numbers: x.get(rMisnumbered), Kind: x.get(rKind), EndAt: x.get(rEndAt),
			Exits: x.get(rExits), FirstAt: x.get(rFirstAt), Counted: x.get(rCounted), Text: x.text(),
		})
	}
	return b
}

func readSender(s record) senderBook {
	return senderBook{
		Attempted: s.get(sAttempted), Committed: s.get(sCommitted), Bytes: s.get(sBytes), ID: s.get(sID), End: End(s.get(sEnd)),
		Ended: s.get(sEnded) != 0, Error: verdict(s.get(sError)), ErrorAt: s.get(sErrorAt), Lost: max(s.get(sLost), 1) - 1,
		Told: s.get(sLost) > 0, Floor: max(s.get(sFloor), 1) - 1, Done: s.get(sDone) != 0, Text: s.text(),
		Framed: s.get(sFramed), Counted: novastream.SenderStats{Batches: s.get(sBatches), Frames: s.get(sFrames), Payload: s.get(sPayload), Wire: s.get(sWire)},
	}
}
