package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

// manifest is what the tests look at of a manifest. `make lint-docs` checks its form.
type manifest struct {
	Kind     string
	Metadata struct{ Name string }
	Data     map[string]string
	Spec     struct {
		Selector selector
		Template struct {
			Metadata struct{ Labels map[string]string }
			Spec     struct {
				ServiceAccountName            string `yaml:"serviceAccountName"`
				TerminationGracePeriodSeconds int    `yaml:"terminationGracePeriodSeconds"`
				Containers                    []struct {
					Args           []string
					LivenessProbe  probe `yaml:"livenessProbe"`
					ReadinessProbe probe `yaml:"readinessProbe"`
					VolumeMounts   []struct {
						Name      string
						MountPath string `yaml:"mountPath"`
					} `yaml:"volumeMounts"`
				}
				Volumes []struct {
					Name      string
					ConfigMap struct{ Name string } `yaml:"configMap"`
				}
			}
		}
	}
}

type selector struct {
	MatchLabels map[string]string `yaml:"matchLabels"`
}

type probe struct {
	HTTPGet struct{ Path string } `yaml:"httpGet"`
}

func manifests(t *testing.T) map[string]manifest {
	t.Helper()
	file, err := os.Open("../../docs/kubernetes/benthos-kinesis.yaml")
	require.NoError(t, err)
	defer file.Close()
	all := map[string]manifest{}
	for decoder := yaml.NewDecoder(file); ; {
		m := manifest{}
		err := decoder.Decode(&m)
		if errors.Is(err, io.EOF) {
			return all
		}
		require.NoError(t, err)
		all[m.Kind] = m
	}
}

func TestManifestsFitTogether(t *testing.T) {
	all := manifests(t)
	pods := all["Deployment"].Spec.Template
	require.Equal(t, pods.Metadata.Labels, all["Deployment"].Spec.Selector.MatchLabels)
	require.Equal(t, pods.Metadata.Labels, all["PodDisruptionBudget"].Spec.Selector.MatchLabels)
	require.Equal(t, all["ServiceAccount"].Metadata.Name, pods.Spec.ServiceAccountName)
	require.Equal(t, all["ConfigMap"].Metadata.Name, pods.Spec.Volumes[0].ConfigMap.Name)
	container := pods.Spec.Containers[0]
	require.Equal(t, pods.Spec.Volumes[0].Name, container.VolumeMounts[0].Name)
	require.Equal(t, []string{"-c", container.VolumeMounts[0].MountPath + "/benthos.yaml"}, container.Args)
	require.Equal(t, "/ping", container.LivenessProbe.HTTPGet.Path, "which no outage of AWS touches")
	require.Equal(t, "/ready", container.ReadinessProbe.HTTPGet.Path)
}

func TestPipelineOfManifestsStopsBeforeItsPodIsKilled(t *testing.T) {
	all := manifests(t)
	text := all["ConfigMap"].Data["benthos.yaml"]
	file := filepath.Join(t.TempDir(), "benthos.yaml")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	out, err := run(t, nil, "lint", "--deprecated", file)
	require.NoError(t, err, out)

	var pipeline struct {
		HTTP struct{ Address string }
		// Both are defaults of Benthos where they are left out: 0s and 20s.
		Delay   string `yaml:"shutdown_delay"`
		Timeout string `yaml:"shutdown_timeout"`
	}
	require.NoError(t, yaml.Unmarshal([]byte(text), &pipeline))
	require.Equal(t, "0.0.0.0:4195", pipeline.HTTP.Address, "probes come from outside")
	require.Empty(t, pipeline.Delay)
	timeout, err := time.ParseDuration(pipeline.Timeout)
	require.NoError(t, err)
	grace := time.Duration(all["Deployment"].Spec.Template.Spec.TerminationGracePeriodSeconds) * time.Second
	require.Greater(t, grace, timeout+10*time.Second)
}
