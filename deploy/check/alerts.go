package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/rules"
	"sigs.k8s.io/yaml"
)

var (
	quiet    = slog.New(slog.DiscardHandler)
	language = parser.NewParser(parser.Options{})
)

func alerts(path string) (count int, wrong []error) {
	groups, wrong := rulefmt.ParseFile(path, false, model.UTF8Validation, language, quiet)
	if groups == nil {
		return 0, wrong
	}
	for _, group := range groups.Groups {
		count += len(group.Rules)
	}
	return count, wrong
}

// What this project uses of the files that `promtool test rules` reads.
type scenarios struct {
	RuleFiles []string       `json:"rule_files"`
	Interval  model.Duration `json:"evaluation_interval"`
	Tests     []scenario     `json:"tests"`
}

type scenario struct {
	Name   string `json:"name"`
	Inputs []struct {
		Series string `json:"series"`
		Values string `json:"values"`
	} `json:"input_series"`
	Looks []look `json:"alert_rule_test"`
}

type look struct {
	At    model.Duration `json:"eval_time"`
	Alert string         `json:"alertname"`
	Fires []struct {
		Labels      map[string]string `json:"exp_labels"`
		Annotations map[string]string `json:"exp_annotations"`
	} `json:"exp_alerts"`
}

// In which tests an alert was looked for.
type sight struct{ fired, silent bool }

// Runs the rules on each test's series with Prometheus' own engine, and compares what fires. Each alert has to be
// seen to fire and not to fire. (The whole of promtool takes four minutes to build: it knows every cloud.)
func tests(path string) (count int, wrong []error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, []error{err}
	}
	var all scenarios
	if err := yaml.UnmarshalStrict(text, &all); err != nil {
		return 0, []error{err}
	}
	for i := range all.RuleFiles {
		all.RuleFiles[i] = filepath.Join(filepath.Dir(path), all.RuleFiles[i])
	}
	sights := map[string]sight{}
	for _, test := range all.Tests {
		for _, look := range test.Looks {
			count++
			of := sights[look.Alert]
			sights[look.Alert] = sight{of.fired || len(look.Fires) > 0, of.silent || len(look.Fires) == 0}
		}
		wrong = append(wrong, test.run(&all, sights)...)
	}
	for _, alert := range slices.Sorted(maps.Keys(sights)) {
		if of := sights[alert]; !of.fired || !of.silent {
			wrong = append(wrong, fmt.Errorf("%s needs a test in which it fires (there is: %v) and one in which it does not (%v)",
				alert, of.fired, of.silent))
		}
	}
	return count, wrong
}

// One test; adds the names of all alerts that there are to `sights`.
func (test *scenario) run(all *scenarios, sights map[string]sight) (wrong []error) {
	step := time.Duration(all.Interval)
	if step <= 0 || len(test.Looks) == 0 {
		return []error{fmt.Errorf("%s: evaluation_interval and alert_rule_test are needed", test.Name)}
	}
	text := fmt.Sprintf("load %v\n", all.Interval)
	for _, input := range test.Inputs {
		text += fmt.Sprintf("  %s %s\n", input.Series, input.Values)
	}
	data, err := promqltest.NewLazyLoader(text, promqltest.LazyLoaderOpts{EnableAtModifier: true, EnableNegativeOffset: true})
	if err != nil {
		return []error{fmt.Errorf("%s: %w", test.Name, err)}
	}
	defer data.Close()
	data.SubqueryInterval = step
	manager := rules.NewManager(&rules.ManagerOptions{
		QueryFunc:  rules.EngineQueryFunc(data.QueryEngine(), data.Storage()),
		Appendable: data.Storage(),
		Context:    context.Background(),
		NotifyFunc: func(context.Context, string, ...*rules.Alert) {},
		Logger:     quiet,
		Parser:     language,
	})
	groups, wrong := manager.LoadGroups(step, labels.EmptyLabels(), "", nil, false, all.RuleFiles...)
	if wrong != nil {
		return wrong
	}
	latest := time.Duration(0)
	for _, look := range test.Looks {
		latest = max(latest, time.Duration(look.At))
		if time.Duration(look.At)%step != 0 {
			wrong = append(wrong, fmt.Errorf("%s: nothing is evaluated after %v, only each %v", test.Name, look.At, all.Interval))
		}
	}
	for after := time.Duration(0); after <= latest; after += step {
		now := time.Unix(0, 0).UTC().Add(after)
		data.WithSamplesTill(now, func(err error) {
			if err != nil {
				wrong = append(wrong, fmt.Errorf("%s: %w", test.Name, err))
			}
			for _, group := range groups {
				group.Eval(data.Context(), now)
			}
		})
		firing := map[string][]string{}
		for _, group := range groups {
			for _, rule := range group.Rules() {
				if rule.LastError() != nil {
					wrong = append(wrong, fmt.Errorf("%s: %s after %v: %w", test.Name, rule.Name(), after, rule.LastError()))
				}
			}
			for _, rule := range group.AlertingRules() {
				sights[rule.Name()] = sights[rule.Name()]
				firing[rule.Name()] = append(firing[rule.Name()], fires(rule)...)
			}
		}
		for _, look := range test.Looks {
			if time.Duration(look.At) != after {
				continue
			}
			wanted, got := look.fires(), firing[look.Alert]
			slices.Sort(wanted)
			slices.Sort(got)
			if !slices.Equal(wanted, got) {
				wrong = append(wrong, fmt.Errorf("%s, after %v: %s fires\n  as %s\n  not as %s", test.Name, after,
					look.Alert, strings.Join(got, "\n     "), strings.Join(wanted, "\n         ")))
			}
		}
	}
	return wrong
}

// As what a rule fires now.
func fires(rule *rules.AlertingRule) (all []string) {
	for _, alert := range rule.ActiveAlerts() {
		if alert.State == rules.StateFiring {
			all = append(all, alert.Labels.String()+" "+alert.Annotations.String())
		}
	}
	return all
}

// As what it should fire. The name is a label that Prometheus adds.
func (look *look) fires() (all []string) {
	for _, alert := range look.Fires {
		named := labels.NewBuilder(labels.FromMap(alert.Labels)).Set(labels.AlertName, look.Alert).Labels()
		all = append(all, named.String()+" "+labels.FromMap(alert.Annotations).String())
	}
	return all
}
