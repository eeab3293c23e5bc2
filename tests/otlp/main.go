// Receives spans with the receiver of the OpenTelemetry Collector while a replay sends them: `otlp path/of/uptake`.
// Says what arrived, and ends with 1 where it is not what the replay did.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	"go.opentelemetry.io/collector/receiver/receivertest"
)

const events = `{"kind":"impression","request_id":"r1","video_id":"v1","timestamp":1700000000000}
{"kind":"play","request_id":"r1","video_id":"v1","timestamp":1700000060000}
`

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: otlp path/of/uptake")
	}
	if err := check(context.Background(), os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func check(ctx context.Context, uptake string) error {
	address, err := free()
	if err != nil {
		return err
	}
	kind := otlpreceiver.NewFactory()
	config := kind.CreateDefaultConfig()
	http := map[string]any{"protocols": map[string]any{"http": map[string]any{"endpoint": address}}}
	if err := confmap.NewFromStringMap(http).Unmarshal(config); err != nil {
		return err
	}
	arrived := new(consumertest.TracesSink)
	receiver, err := kind.CreateTraces(ctx, receivertest.NewNopSettings(kind.Type()), config, arrived)
	if err != nil {
		return err
	}
	if err := receiver.Start(ctx, componenttest.NewNopHost()); err != nil {
		return err
	}
	defer receiver.Shutdown(ctx)

	place, err := os.MkdirTemp("", "uptake-otlp-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(place)
	input := filepath.Join(place, "events.jsonl")
	if err := os.WriteFile(input, []byte(events), 0o600); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	replay := exec.CommandContext(ctx, uptake, "replay", input, "--data", filepath.Join(place, "data"), "--set", "traces.url=http://"+address)
	if said, err := replay.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", replay, err, said)
	}
	// The program has ended, so all have been sent.
	var rows int64
	count := map[string]int{}
	for _, traces := range arrived.AllTraces() {
		for _, resource := range traces.ResourceSpans().All() {
			service, _ := resource.Resource().Attributes().Get("service.name")
			for _, scope := range resource.ScopeSpans().All() {
				for _, span := range scope.Spans().All() {
					if service.AsString() != "uptake" || span.TraceID().IsEmpty() || span.EndTimestamp() < span.StartTimestamp() {
						return fmt.Errorf("span %q of %q in trace %s ends before it starts, or is nobody's", span.Name(), service.AsString(), span.TraceID())
					}
					if written, ok := span.Attributes().Get("uptake.rows"); ok && span.Name() == "table write" {
						rows += written.Int()
					}
					count[span.Name()]++
				}
			}
		}
	}
	if rows != 1 || count["archive put"] != 1 {
		return fmt.Errorf("the replay wrote one row and one object; its spans tell of %d rows: %v", rows, count)
	}
	fmt.Println("spans that the OpenTelemetry Collector's receiver took:", count)
	return nil
}

// An address on which nothing listens.
func free() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}
