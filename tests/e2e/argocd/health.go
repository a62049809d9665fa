package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/argoproj/argo-cd/v3/util/lua"
	"github.com/argoproj/gitops-engine/pkg/health"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// The form of Argo CD's own health_test.yaml.
type healthTests struct {
	Tests []struct {
		InputPath    string              `json:"inputPath"`
		HealthStatus health.HealthStatus `json:"healthStatus"`
	} `json:"tests"`
}

// Runs every health.lua below a folder as Argo CD runs those of users, that is without Lua's
// libraries, on the objects that the health_test.yaml beside it names.
func testHealthChecks(arguments []string) error {
	if len(arguments) != 1 {
		return fmt.Errorf("argocd-health-test: its only argument is a folder in the layout of resource_customizations")
	}
	passed, failed := 0, 0
	err := filepath.WalkDir(arguments[0], func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Base(path) != "health.lua" {
			return err
		}
		script, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		folder := filepath.Dir(path)
		var tests healthTests
		if err := read(filepath.Join(folder, "health_test.yaml"), &tests); err != nil {
			return err
		}
		for _, test := range tests.Tests {
			input := filepath.Join(folder, test.InputPath)
			if err := testHealth(string(script), input, test.HealthStatus); err != nil {
				failed++
				fmt.Printf("FAILED %s: %v\n", input, err)
			} else {
				passed++
				fmt.Printf("ok %s: %s\n", input, test.HealthStatus.Status)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 || passed == 0 {
		return fmt.Errorf("argocd-health-test: not every health check answers as it must")
	}
	return nil
}

func testHealth(script, input string, expected health.HealthStatus) error {
	var object map[string]any
	if err := read(input, &object); err != nil {
		return err
	}
	answer, err := (lua.VM{}).ExecuteHealthLua(&unstructured.Unstructured{Object: object}, script)
	if err != nil {
		return err
	}
	if *answer != expected {
		return fmt.Errorf("%s %q instead of %s %q", answer.Status, answer.Message, expected.Status, expected.Message)
	}
	return nil
}

func read(path string, into any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := yaml.UnmarshalStrict(text, into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
