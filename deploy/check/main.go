// Reads alerts and dashboards as Prometheus does, and tests the alerts with its engine; reads folders of manifests as
// Kubernetes does and Dockerfiles as BuildKit does: `check alerts.rules.yaml… alerts.tests.yaml… dashboard.json… folder…
// Dockerfile…`. Says what is wrong with each, and ends with 1 if anything is.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

// What Grafana puts in before Prometheus sees a query.
var variables = strings.NewReplacer("$__rate_interval", "5m", "$instance", ".+")

type dashboard struct {
	Panels []struct {
		Title   string
		Targets []struct{ Expr string }
	}
}

func queries(path string) (count int, wrong []error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, []error{err}
	}
	var all dashboard
	if err := json.Unmarshal(text, &all); err != nil {
		return 0, []error{err}
	}
	for _, panel := range all.Panels {
		for _, target := range panel.Targets {
			count++
			if _, err := language.ParseExpr(variables.Replace(target.Expr)); err != nil {
				wrong = append(wrong, fmt.Errorf("panel %q: %w", panel.Title, err))
			}
		}
	}
	return count, wrong
}

func main() {
	failed := len(os.Args) < 2
	for _, path := range os.Args[1:] {
		read := alerts
		if strings.HasSuffix(path, ".json") {
			read = queries
		} else if strings.HasSuffix(path, ".tests.yaml") {
			read = tests
		} else if about, err := os.Stat(path); err == nil && about.IsDir() {
			read = kubernetes
		} else if strings.HasSuffix(path, "Dockerfile") {
			read = dockerfile
		}
		count, wrong := read(path)
		if count == 0 && len(wrong) == 0 {
			wrong = append(wrong, fmt.Errorf("there is nothing in it"))
		}
		for _, err := range wrong {
			fmt.Fprintf(os.Stderr, "%s: %v\n", path, err)
			failed = true
		}
		fmt.Printf("%s: %d\n", path, count)
	}
	if failed {
		os.Exit(1)
	}
}
