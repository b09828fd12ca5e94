package tcp

import "time"

// lingerTime is how long a pump whose sender has given up may go on to carry
// what was committed before, as a closed socket does.
const lingerTime = 10 * time.Second
