package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
)

// What the images of others hold is not asked: each is taken for an empty one.
type noRegistry struct{}

func (noRegistry) ResolveImageConfig(_ context.Context, ref string, _ sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	return ref, digest.FromString(ref), []byte(`{"architecture":"amd64","os":"linux","config":{}}`), nil
}

func (noRegistry) ResolveSourceMetadata(_ context.Context, op *pb.SourceOp, _ sourceresolver.Opt) (*sourceresolver.MetaResponse, error) {
	return nil, errors.New("no source is asked for: " + op.Identifier)
}

// Reads a Dockerfile as BuildKit does: its translation to build steps, and all checks of `docker build --check`.
// Beyond these, the image's last user must not be root.
func dockerfile(path string) (count int, wrong []error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, []error{err}
	}
	source := llb.NewSourceMap(nil, path, "Dockerfile", text)
	source.Definition = &llb.Definition{}
	options := dockerfile2llb.ConvertOpt{MetaResolver: noRegistry{}, Config: dockerui.Config{}, SourceMap: source}
	results, err := dockerfile2llb.DockerfileLint(context.Background(), text, options)
	if err != nil {
		return 0, []error{err}
	}
	if results.Error != nil {
		wrong = append(wrong, errors.New(results.Error.Message))
	}
	for _, warning := range results.Warnings {
		wrong = append(wrong, fmt.Errorf("%s: %s", warning.RuleName, warning.Detail))
	}
	built, err := dockerfile2llb.Dockerfile2LLB(context.Background(), text, options)
	if err != nil {
		return 0, append(wrong, err)
	}
	if user := built.Image.Config.User; user == "" || user == "root" || user == "0" {
		wrong = append(wrong, fmt.Errorf("the image runs as root"))
	}
	return len(built.Image.History), wrong
}
