package ring

// NoProducer makes a producer that can send nothing, for an end that has none:
// the fast paths then need no test.
func NoProducer() *Producer {
	p := &Producer{ring: &Ring{}, n: 1}
	p.sealed.Store(true)
	return p
}

// NoConsumer makes a consumer that finds nothing, for an end that has none.
func NoConsumer() *Consumer {
	c := &Consumer{ring: &Ring{}}
	c.sealed.Store(true)
	return c
}
