package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/json"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// What a folder holds, by the types that the API server itself reads it into.
type manifests struct {
	wrong   []error
	pods    map[string]corev1.PodTemplateSpec
	objects map[string]runtime.Object
}

func (m *manifests) fail(who, format string, args ...any) {
	m.wrong = append(m.wrong, fmt.Errorf(who+": "+format, args...))
}

// A field that there is not, or of another type, is refused, as the API server does it with strict validation.
func typed[T any, P interface {
	*T
	runtime.Object
}](m *manifests, who string, text []byte) P {
	object := P(new(T))
	data, err := yaml.YAMLToJSON(text)
	if err != nil {
		m.fail(who, "%v", err)
	}
	unknown, err := json.UnmarshalStrict(data, object)
	for _, err := range append(unknown, err) {
		if err != nil {
			m.fail(who, "%v", err)
		}
	}
	m.objects[who] = object
	return object
}

func (m *manifests) template(who string, selector *metav1.LabelSelector, template corev1.PodTemplateSpec) {
	m.pods[who] = template
	if selector == nil {
		return
	}
	if wanted, err := metav1.LabelSelectorAsSelector(selector); err != nil || !wanted.Matches(labels.Set(template.Labels)) {
		m.fail(who, "its selector does not match its pods: %v", err)
	}
}

func (m *manifests) selects(who string, selector labels.Selector) []corev1.PodTemplateSpec {
	var found []corev1.PodTemplateSpec
	for _, pod := range m.pods {
		if selector.Matches(labels.Set(pod.Labels)) {
			found = append(found, pod)
		}
	}
	if len(found) == 0 {
		m.fail(who, "no pod has the labels %s", selector)
	}
	return found
}

// What pods refer to must be there, but for the secrets, which are nobody's business but the user's.
func (m *manifests) references(who string, template corev1.PodTemplateSpec) {
	volumes := map[string]bool{}
	for _, volume := range template.Spec.Volumes {
		volumes[volume.Name] = true
		if volume.ConfigMap != nil && m.objects["ConfigMap "+volume.ConfigMap.Name] == nil {
			m.fail(who, "there is no ConfigMap %s", volume.ConfigMap.Name)
		}
	}
	for _, container := range template.Spec.Containers {
		ports, variables := map[string]bool{}, map[string]bool{}
		for _, port := range container.Ports {
			ports[port.Name] = true
		}
		for _, variable := range container.Env {
			variables[variable.Name] = true
		}
		for _, mount := range container.VolumeMounts {
			if !volumes[mount.Name] {
				m.fail(who, "there is no volume %s", mount.Name)
			}
		}
		for _, probe := range []*corev1.Probe{container.StartupProbe, container.LivenessProbe, container.ReadinessProbe} {
			if probe != nil && probe.HTTPGet != nil && !ports[probe.HTTPGet.Port.StrVal] {
				m.fail(who, "a probe asks port %s, which there is not", probe.HTTPGet.Port.String())
			}
		}
		for _, arg := range container.Args {
			if name, isVariable := strings.CutPrefix(arg, "$("); isVariable && !variables[strings.TrimSuffix(name, ")")] {
				m.fail(who, "there is no variable for %s", arg)
			}
		}
		context := container.SecurityContext
		if context == nil || context.AllowPrivilegeEscalation == nil || *context.AllowPrivilegeEscalation {
			m.fail(who, "may gain rights")
		}
		if container.Resources.Limits.Memory().IsZero() {
			m.fail(who, "its memory has no limit")
		}
	}
}

// Reads a folder as `kubectl apply -k` does.
func kubernetes(folder string) (count int, wrong []error) {
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), folder)
	if err != nil {
		return 0, []error{err}
	}
	m := manifests{pods: map[string]corev1.PodTemplateSpec{}, objects: map[string]runtime.Object{}}
	for _, resource := range built.Resources() {
		text, err := resource.AsYAML()
		who := resource.GetKind() + " " + resource.GetName()
		if err != nil {
			m.fail(who, "%v", err)
			continue
		}
		switch resource.GetApiVersion() + " " + resource.GetKind() {
		case "v1 Namespace":
			typed[corev1.Namespace](&m, who, text)
		case "v1 ConfigMap":
			typed[corev1.ConfigMap](&m, who, text)
		case "v1 Service":
			typed[corev1.Service](&m, who, text)
		case "batch/v1 Job":
			m.template(who, nil, typed[batchv1.Job](&m, who, text).Spec.Template)
		case "apps/v1 StatefulSet":
			set := typed[appsv1.StatefulSet](&m, who, text)
			m.template(who, set.Spec.Selector, set.Spec.Template)
		case "apps/v1 Deployment":
			deployment := typed[appsv1.Deployment](&m, who, text)
			m.template(who, deployment.Spec.Selector, deployment.Spec.Template)
		case "policy/v1 PodDisruptionBudget":
			typed[policyv1.PodDisruptionBudget](&m, who, text)
		case "networking.k8s.io/v1 NetworkPolicy":
			typed[networkingv1.NetworkPolicy](&m, who, text)
		default:
			m.fail(who, "%s is not known here", resource.GetApiVersion())
		}
	}
	for who, template := range m.pods {
		m.references(who, template)
	}
	for who, object := range m.objects {
		switch object := object.(type) {
		case *corev1.Service:
			for _, pod := range m.selects(who, labels.SelectorFromSet(object.Spec.Selector)) {
				m.reaches(who, object, pod)
			}
		case *policyv1.PodDisruptionBudget:
			selector, _ := metav1.LabelSelectorAsSelector(object.Spec.Selector)
			m.selects(who, selector)
		case *networkingv1.NetworkPolicy:
			selector, _ := metav1.LabelSelectorAsSelector(&object.Spec.PodSelector)
			m.selects(who, selector)
		case *appsv1.StatefulSet:
			m.hosts(who, object, folder)
		}
	}
	return len(built.Resources()), m.wrong
}

func (m *manifests) reaches(who string, service *corev1.Service, pod corev1.PodTemplateSpec) {
	for _, port := range service.Spec.Ports {
		found := false
		for _, container := range pod.Spec.Containers {
			for _, open := range container.Ports {
				found = found || open.Name == port.TargetPort.StrVal
			}
		}
		if !found {
			m.fail(who, "its pods have no port %s", port.TargetPort.String())
		}
	}
}

// The processes find one another by the names that the set gives its pods.
func (m *manifests) hosts(who string, set *appsv1.StatefulSet, folder string) {
	text, err := os.ReadFile(filepath.Join(folder, "hosts"))
	if err != nil {
		m.fail(who, "%v", err)
		return
	}
	lines := strings.Fields(string(text))
	if set.Spec.Replicas == nil || int(*set.Spec.Replicas) != len(lines) {
		m.fail(who, "hosts has %d lines", len(lines))
	}
	port := set.Spec.Template.Spec.Containers[0].Ports[0].ContainerPort
	for index, line := range lines {
		if name := fmt.Sprintf("%s-%d.%s:%d", set.Name, index, set.Spec.ServiceName, port); line != name {
			m.fail(who, "line %d of hosts is %s, not %s", index+1, line, name)
		}
	}
	if m.objects["Service "+set.Spec.ServiceName] == nil {
		m.fail(who, "there is no service %s", set.Spec.ServiceName)
	}
}
