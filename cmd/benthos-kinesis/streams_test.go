package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// root is the configuration of a service in streams mode.
func root(address string) string {
	return "http: { address: '" + address + "' }\nmetrics: { prometheus: {} }\n"
}

// pipeline is a stream of Benthos, which has an input of this project.
func pipeline(stream, file string) string {
	return "input: { " + input(stream) + " }\noutput: { " + lines(file) + " }\n"
}

// TestStreamsModeRunsTwoPipelinesThatComeChangeAndGo runs two pipelines beside
// each other while records flow to both: one is there from the start, as a file;
// both are added, changed, deleted and added again by the HTTP service. Each
// record comes once.
func TestStreamsModeRunsTwoPipelinesThatComeChangeAndGo(t *testing.T) {
	r := newRig(t)
	require.NoError(t, r.aws.CreateStream("orders", 3))
	require.NoError(t, r.aws.CreateStream("payments", 2))
	address := r.address()
	at := "http://" + address
	stopOrders, stopPayments := r.feed("orders"), r.feed("payments")
	some := func(file string) {
		t.Helper()
		from := len(r.written(file))
		r.await("more lines in "+file, func() bool { return len(r.written(file)) >= from+50 })
	}

	p := r.start("-c", r.write("root.yaml", root(address)), "streams", r.write("orders.yaml", pipeline("orders", "orders")))
	some("orders")
	p.must("POST", at+"/streams/payments", pipeline("payments", "payments"))
	some("payments")
	some("orders")
	require.Equal(t, "OK", p.must("GET", at+"/ready", ""))

	scraped := p.must("GET", at+"/metrics", "")
	for _, series := range []string{
		`kinesis_leases_held{kinesis_stream="orders",label="",path="root.input",stream="orders"} 3`,
		`kinesis_leases_held{kinesis_stream="payments",label="",path="root.input",stream="payments"} 2`,
		`kinesis_unread_shards{kinesis_stream="payments",label="",path="root.input",stream="payments"} 0`,
	} {
		require.Contains(t, scraped, series+"\n")
	}
	for _, name := range []string{"kinesis_millis_behind_latest", "kinesis_in_flight_messages"} {
		require.Regexp(t, `(?m)^`+name+`\{kinesis_shard="shardId-000000000002",kinesis_stream="orders",label="",path="root.input",stream="orders"\} \d`, scraped)
	}

	p.must("PUT", at+"/streams/orders", pipeline("orders", "orders.changed"))
	p.must("PATCH", at+"/streams/payments", "output: { "+strings.ReplaceAll(lines("payments.changed"), "${DIR}", r.dir)+" }")
	some("orders.changed")
	some("payments.changed")

	p.must("DELETE", at+"/streams/orders", "")
	scraped = p.must("GET", at+"/metrics", "")
	require.Contains(t, scraped, `kinesis_leases_held{kinesis_stream="orders",label="",path="root.input",stream="orders"} 0`+"\n", "what is gone holds nothing")
	require.Contains(t, scraped, `kinesis_leases_held{kinesis_stream="payments",label="",path="root.input",stream="payments"} 2`+"\n")
	some("payments.changed")
	p.must("POST", at+"/streams/orders", pipeline("orders", "orders.anew"))
	some("orders.anew")
	p.must("DELETE", at+"/streams/payments", "")
	answer, ok := p.request("POST", at+"/streams/orders", pipeline("orders", "orders.twice"))
	require.False(t, ok)
	require.Contains(t, answer, "Stream already exists")
	orders, payments := stopOrders(), stopPayments()
	all := func(files ...string) (got []string) {
		for _, file := range files {
			got = append(got, r.written(file)...)
		}
		return got
	}
	r.await("every order", func() bool { return len(all("orders", "orders.changed", "orders.anew")) >= len(orders) })
	require.ElementsMatch(t, orders, all("orders", "orders.changed", "orders.anew"))

	p.must("POST", at+"/streams/payments", pipeline("payments", "payments.anew"))
	r.await("every payment", func() bool { return len(all("payments", "payments.changed", "payments.anew")) >= len(payments) })
	require.ElementsMatch(t, payments, all("payments", "payments.changed", "payments.anew"))
	p.stop()
	require.NotContains(t, p.log.String(), "panic")
}
